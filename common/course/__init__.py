"""The `course` command: what a learner types between lessons."""
