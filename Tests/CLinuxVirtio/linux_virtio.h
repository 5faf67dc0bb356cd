// The kernel's own definitions: the oracle for our layouts. Tests only.
#ifndef LINUX_VIRTIO_H
#define LINUX_VIRTIO_H

#include <linux/vfio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#endif
