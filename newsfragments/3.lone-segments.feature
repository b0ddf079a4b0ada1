A TCP segment that is larger than the path, as with guests at MTU 9000, loses only the bytes of a lost datagram and not all of it: on a link with 10 % loss transfers go on where they stood still.
