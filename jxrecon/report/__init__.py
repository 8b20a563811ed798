"""Pages and pictures: what runs, comparisons, reconstructions and registrations look like."""
