"""Networks: how they are built, trained, stored and loaded."""
