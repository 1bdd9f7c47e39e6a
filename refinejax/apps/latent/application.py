"""What this application adds to the command line, to training and to the models."""

from refinejax._applications import Application

APPLICATION = Application("latent")
