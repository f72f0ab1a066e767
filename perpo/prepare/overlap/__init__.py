"""Pictures that training and evaluation share."""
