"""What runs on the far side of the wall: the jail, the parent of all programs, and the harness around one program.

This package uses the standard library alone and never the rest of coderl: a fresh interpreter imports it as the top-level
package `inside`, locks itself in and forks one child per program. Nothing in here knows an expected output.
"""
