A lone frame of a flow that was seen within the last second goes a quick way: the core takes less than half the time for it, in both directions.
