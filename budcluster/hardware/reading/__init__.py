"""What node objects tell of hardware. Pure, and distrustful: anybody with access to a node may write labels."""
