"""Commands of the command line that fill a file of their own. Like `__main__`, they know both measuring and reports."""
