"""One step; made parallel; in a loop; saved and resumed. It receives functions, not networks."""
