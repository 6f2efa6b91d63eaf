"""What installed add-ons do to the cluster while their pods run."""
