"""What a cluster does by itself: nodes, scheduler, kubelets, controllers, add-ons, runtimes."""
