`l2overlay attach TOOL` prints how a VM, container or lab tool joins the segment (QEMU, libvirt, LXC, Docker, podman, CNI and eleven
others), for the installed version of the tool. `attach netns` and `attach tap` do it, and `detach` undoes that.
