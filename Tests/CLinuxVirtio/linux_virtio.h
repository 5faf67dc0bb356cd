// The kernel's own definitions: the oracle for our layouts. Tests only.
#ifndef LINUX_VIRTIO_H
#define LINUX_VIRTIO_H

#include <linux/vfio.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_vsock.h>

#endif
