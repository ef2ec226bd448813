"""From logits to energies, their change under attack, and abnormal examples."""
