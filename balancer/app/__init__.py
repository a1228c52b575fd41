"""The composition root: builds the balancer's app from its settings. Only this package knows all parts."""
