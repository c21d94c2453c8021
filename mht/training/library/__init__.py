"""The trainer's door for library users: arguments, batches, single steps."""
