A node with a thousand silent peers in its file wakes four times a second for them and no longer forty: 0.75 % of a core instead of 1.9 %.
