"""A run applied to a patient: volumes, surfaces and styles from X-rays that were never seen."""
