"""What the commands of applications share: options, files, running."""
