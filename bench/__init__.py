"""What the product's hot paths cost, beside what others need for the same: ``make bench``."""
