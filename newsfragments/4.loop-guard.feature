The loop guard finds a cable between the bridges of two hosts within a second, cuts it out of the overlay without cutting anybody off, and heals by itself. No spanning tree is needed.
