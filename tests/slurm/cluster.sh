#!/usr/bin/env bash
# A real Slurm on one machine, for tests: cluster.sh up FOLDER | cluster.sh down FOLDER. As root, without systemd.
#
# munge, mariadb, slurmdbd, slurmctld and two nodes (node1, node2: two slurmd of this machine), all on loopback and on ports of
# their own, all state in FOLDER. GPUs are copies of /dev/null. Programs in a job look for the configuration in /etc/slurm and
# nowhere else, so `up` puts links there and refuses when there is one; `down` removes them.
set -euo pipefail
action=$1 folder=$(readlink -m "$2")
host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf

wait_for() { # seconds, what, command...
    local left=$(($1 * 4)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((left-- > 0)) || { echo "error: $what does not start; its log is in $folder/log" >&2; exit 1; }
        sleep 0.25
    done
}

down() {
    if [[ -e $folder/run/slurmctld.pid ]]; then # jobs outlive slurmd, so they go first
        timeout 5 scancel --user "$(id -un)" || true
        for _ in $(seq 240); do [[ -z $(timeout 5 squeue --noheader) ]] && break; sleep 0.25; done
    fi
    for file in /etc/slurm/slurm.conf /etc/slurm/gres.conf; do
        if [[ $(readlink "$file") == "$folder"/* ]]; then rm "$file"; fi
    done
    if [[ -e $folder/made-etc-slurm ]]; then rmdir --ignore-fail-on-non-empty /etc/slurm; fi
    for name in node1 node2 slurmctld slurmdbd mariadb munged; do # in this order: each needs those after it
        pid=$(cat "$folder/run/$name.pid" 2>/dev/null || true)
        [[ -n $pid ]] || continue
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
        kill -KILL "$pid" 2>/dev/null || true
        rm -f "$folder/run/$name.pid"
    done
}

up() {
    [[ $(id -u) == 0 ]] || { echo "error: needs root, for munge and fake devices" >&2; exit 1; }
    if [[ -e /etc/slurm/slurm.conf ]]; then
        echo "error: /etc/slurm/slurm.conf exists: this machine belongs to a Slurm cluster, run this elsewhere" >&2
        exit 1
    fi
    mkdir -p "$folder"/{state,node1,node2,log,run,mariadb}
    trap 'code=$?; ((code == 0)) || down; exit $code' EXIT
    if ! munge -n </dev/null >/dev/null 2>&1; then
        install -d -o munge -g munge /run/munge /var/log/munge /var/lib/munge
        install -d -o munge -g munge "$folder/run/munge"
        runuser -u munge -- munged --pid-file "$folder/run/munge/pid"
        wait_for 10 munged munge -n
        cp "$folder/run/munge/pid" "$folder/run/munged.pid"
    fi

    chown mysql: "$folder/mariadb"
    install -d -o mysql "$folder/run/mariadb"
    local sql=(mysql --no-defaults --socket="$folder/run/mariadb/sock")
    mysql_install_db --no-defaults --user=mysql --datadir="$folder/mariadb" --auth-root-authentication-method=socket \
        --skip-test-db >"$folder/log/mariadb_install.log" 2>&1
    setsid mysqld --no-defaults --user=mysql --datadir="$folder/mariadb" --socket="$folder/run/mariadb/sock" --port=33306 \
        --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
        --log-error="$folder/mariadb/error.log" >/dev/null 2>&1 &
    echo $! >"$folder/run/mariadb.pid"
    wait_for 60 mariadb "${sql[@]}" -e 'select 1'
    "${sql[@]}" -e "create database slurm; create user slurm@127.0.0.1 identified by 'slurm';
        create user slurm@localhost identified by 'slurm';
        grant all on slurm.* to slurm@127.0.0.1; grant all on slurm.* to slurm@localhost;"

    cat >"$folder/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/run/slurmdbd.file
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
END
    chmod 600 "$folder/slurmdbd.conf"
    cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldPidFile=$folder/run/slurmctld.file
SlurmdPidFile=$folder/run/%n.file
SlurmdSpoolDir=$folder/%n
StateSaveLocation=$folder/state
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
KillWait=5
MinJobAge=600
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=2 RealMemory=256000 Gres=gpu:fake:2
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16822 CPUs=2 RealMemory=256000 Gres=gpu:fake:2
PartitionName=cpu Nodes=node1,node2 Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=node1,node2 MaxTime=2-00:00:00
END
    : >"$folder/gres.conf"
    for gpu in 0 1 2 3; do
        mknod "$folder/gpu$gpu" c 1 3
        echo "NodeName=node$((1 + gpu / 2)) Name=gpu Type=fake File=$folder/gpu$gpu" >>"$folder/gres.conf"
    done
    if [[ ! -d /etc/slurm ]]; then mkdir /etc/slurm; touch "$folder/made-etc-slurm"; fi
    ln -s "$folder/slurm.conf" "$folder/gres.conf" /etc/slurm/

    setsid slurmdbd -D >"$folder/log/slurmdbd.out" 2>&1 &
    echo $! >"$folder/run/slurmdbd.pid"
    wait_for 30 slurmdbd sacctmgr -n list cluster
    sacctmgr -i add cluster test >/dev/null
    sacctmgr -i add account coderl cluster=test >/dev/null
    sacctmgr -i add user "$(id -un)" account=coderl >/dev/null
    setsid slurmctld -D >"$folder/log/slurmctld.out" 2>&1 &
    echo $! >"$folder/run/slurmctld.pid"
    wait_for 30 slurmctld bash -c 'scontrol ping | grep -q UP'
    for node in node1 node2; do
        setsid slurmd -D -N $node >"$folder/log/$node.out" 2>&1 &
        echo $! >"$folder/run/$node.pid"
    done
    wait_for 30 slurmd bash -c '[[ $(sinfo -h -N -p cpu -t idle | wc -l) == 2 ]]'
}

case $action in
up | down) $action ;;
*) echo "usage: cluster.sh up|down FOLDER" >&2; exit 2 ;;
esac
