#define _GNU_SOURCE
#include "include/shim_vfio.h"

#include <errno.h>
#include <linux/vfio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

// Older headers end before the character device and iommufd: the same layouts as in the kernel's
// linux/vfio.h and linux/iommufd.h since 6.6, under names of our own.
struct bind_iommufd {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
};
struct attach_iommufd {
    uint32_t argsz, flags, pt_id;
};
struct ioas_alloc {
    uint32_t size, flags, out_ioas_id;
};
struct ioas_iova_ranges {
    uint32_t size, ioas_id, num_iovas, reserved;
    uint64_t allowed_iovas, out_iova_alignment;
};
struct ioas_map {
    uint32_t size, flags, ioas_id, reserved;
    uint64_t user_va, length, iova;
};
struct ioas_unmap {
    uint32_t size, ioas_id;
    uint64_t iova, length;
};
struct ioas_destroy {
    uint32_t size, id;
};
_Static_assert(sizeof(struct bind_iommufd) == 16, "VFIO_DEVICE_BIND_IOMMUFD");
_Static_assert(sizeof(struct attach_iommufd) == 12, "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
_Static_assert(sizeof(struct ioas_alloc) == 12, "IOMMU_IOAS_ALLOC");
_Static_assert(sizeof(struct ioas_iova_ranges) == 32, "IOMMU_IOAS_IOVA_RANGES");
_Static_assert(sizeof(struct ioas_map) == 40, "IOMMU_IOAS_MAP");
_Static_assert(sizeof(struct ioas_unmap) == 24, "IOMMU_IOAS_UNMAP");
_Static_assert(sizeof(struct ioas_destroy) == 8, "IOMMU_DESTROY");
enum {
    IOAS_MAP_FIXED_IOVA = 1 << 0,
    IOAS_MAP_WRITEABLE = 1 << 1,
    IOAS_MAP_READABLE = 1 << 2,
};
#define BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 19)
#define IOAS_DESTROY _IO(VFIO_TYPE, 0x80)
#define IOAS_ALLOC _IO(VFIO_TYPE, 0x81)
#define IOAS_IOVA_RANGES _IO(VFIO_TYPE, 0x84)
#define IOAS_MAP _IO(VFIO_TYPE, 0x85)
#define IOAS_UNMAP _IO(VFIO_TYPE, 0x86)

_Static_assert(sizeof(struct vfio_device_info) >= 16, "the parts read as 16 bytes");
_Static_assert(sizeof(struct vfio_region_info) == 32, "struct vfio_region_info");
_Static_assert(sizeof(struct vfio_irq_info) == 16, "struct vfio_irq_info");
_Static_assert(sizeof(struct vfio_pci_hot_reset_info) == 12, "struct vfio_pci_hot_reset_info");

static int request(int fd, unsigned long number, void *argument) {
    int value = ioctl(fd, number, argument);
    return value < 0 ? -errno : value;
}
static int plain(int fd, unsigned long number, unsigned long argument) {
    int value = ioctl(fd, number, argument);
    return value < 0 ? -errno : value;
}

int shim_vfio_api_version(int container) { return plain(container, VFIO_GET_API_VERSION, 0); }
int shim_vfio_check_extension(int container, uint32_t extension) {
    return plain(container, VFIO_CHECK_EXTENSION, extension);
}
int shim_vfio_set_iommu(int container, uint32_t type) {
    return plain(container, VFIO_SET_IOMMU, type);
}

// The first two words of every structure that grows are its size and the index asked for.
static int ask(int fd, unsigned long number, void *buffer, uint32_t size, uint32_t least) {
    if (size < least)
        return -EINVAL;
    memcpy(buffer, &size, sizeof size);
    return request(fd, number, buffer);
}
int shim_vfio_iommu_info(int container, void *buffer, uint32_t size) {
    memset(buffer, 0, size);
    return ask(container, VFIO_IOMMU_GET_INFO, buffer, size, sizeof(struct vfio_iommu_type1_info));
}
int shim_vfio_device_info(int device, void *buffer, uint32_t size) {
    memset(buffer, 0, size);
    return ask(device, VFIO_DEVICE_GET_INFO, buffer, size, 16);
}
int shim_vfio_hot_reset_info(int device, void *buffer, uint32_t size) {
    memset(buffer, 0, size);
    return ask(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, buffer, size,
               sizeof(struct vfio_pci_hot_reset_info));
}
int shim_vfio_region_info(int device, uint32_t index, void *buffer, uint32_t size) {
    if (size < sizeof(struct vfio_region_info))
        return -EINVAL;
    memset(buffer, 0, size);
    struct vfio_region_info fixed = {.index = index};
    memcpy(buffer, &fixed, sizeof fixed);
    return ask(device, VFIO_DEVICE_GET_REGION_INFO, buffer, size, sizeof fixed);
}
int shim_vfio_irq_info(int device, uint32_t index, void *buffer, uint32_t size) {
    if (size < sizeof(struct vfio_irq_info))
        return -EINVAL;
    memset(buffer, 0, size);
    struct vfio_irq_info fixed = {.index = index};
    memcpy(buffer, &fixed, sizeof fixed);
    return ask(device, VFIO_DEVICE_GET_IRQ_INFO, buffer, size, sizeof fixed);
}

int shim_vfio_map_dma(int container, const void *address, uint64_t iova, uint64_t size) {
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map,
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)address,
        .iova = iova,
        .size = size,
    };
    return request(container, VFIO_IOMMU_MAP_DMA, &map);
}
int shim_vfio_unmap_dma(int container, uint64_t iova, uint64_t size, uint64_t *unmapped) {
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = iova, .size = size};
    int status = request(container, VFIO_IOMMU_UNMAP_DMA, &unmap);
    *unmapped = unmap.size;
    return status;
}

int shim_vfio_group_status(int group, uint32_t *flags) {
    struct vfio_group_status status = {.argsz = sizeof status};
    int result = request(group, VFIO_GROUP_GET_STATUS, &status);
    *flags = status.flags;
    return result;
}
int shim_vfio_set_container(int group, int container) {
    return request(group, VFIO_GROUP_SET_CONTAINER, &container);
}
int shim_vfio_unset_container(int group) { return plain(group, VFIO_GROUP_UNSET_CONTAINER, 0); }
int shim_vfio_device(int group, const char *name) {
    return request(group, VFIO_GROUP_GET_DEVICE_FD, (void *)name);
}

int shim_vfio_set_irqs(int device, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
                       const int32_t *events) {
    enum { LIMIT = 2048 };
    union {
        struct vfio_irq_set set;
        uint8_t bytes[sizeof(struct vfio_irq_set) + LIMIT * sizeof(int32_t)];
    } request_buffer;
    if (count > LIMIT)
        return -E2BIG;
    size_t data = events ? count * sizeof(int32_t) : 0;
    request_buffer.set = (struct vfio_irq_set){
        .argsz = (uint32_t)(sizeof(struct vfio_irq_set) + data),
        .flags = flags,
        .index = index,
        .start = start,
        .count = count,
    };
    if (data)
        memcpy(request_buffer.bytes + sizeof(struct vfio_irq_set), events, data);
    return request(device, VFIO_DEVICE_SET_IRQS, &request_buffer);
}
int shim_vfio_reset(int device) { return plain(device, VFIO_DEVICE_RESET, 0); }
int shim_vfio_ioeventfd16(int device, uint64_t offset, uint16_t value, int event) {
    struct vfio_device_ioeventfd set = {
        .argsz = sizeof set,
        .flags = VFIO_DEVICE_IOEVENTFD_16,
        .offset = offset,
        .data = value,
        .fd = event,
    };
    return request(device, VFIO_DEVICE_IOEVENTFD, &set);
}

int shim_vfio_bind_iommufd(int device, int iommufd, uint32_t *id) {
    struct bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommufd};
    int status = request(device, BIND_IOMMUFD, &bind);
    *id = bind.out_devid;
    return status;
}
int shim_vfio_attach_iommufd(int device, uint32_t address_space) {
    struct attach_iommufd attach = {.argsz = sizeof attach, .pt_id = address_space};
    return request(device, ATTACH_IOMMUFD, &attach);
}
int shim_iommufd_allocate(int iommufd, uint32_t *address_space) {
    struct ioas_alloc allocate = {.size = sizeof allocate};
    int status = request(iommufd, IOAS_ALLOC, &allocate);
    *address_space = allocate.out_ioas_id;
    return status;
}
int shim_iommufd_ranges(int iommufd, uint32_t address_space, uint64_t *pairs, uint32_t *count,
                        uint64_t *alignment) {
    struct ioas_iova_ranges ranges = {
        .size = sizeof ranges,
        .ioas_id = address_space,
        .num_iovas = *count,
        .allowed_iovas = (uintptr_t)pairs,
    };
    int status = request(iommufd, IOAS_IOVA_RANGES, &ranges);
    *count = ranges.num_iovas;
    *alignment = ranges.out_iova_alignment;
    return status;
}
int shim_iommufd_map(int iommufd, uint32_t address_space, const void *address, uint64_t iova,
                     uint64_t size) {
    struct ioas_map map = {
        .size = sizeof map,
        .flags = IOAS_MAP_FIXED_IOVA | IOAS_MAP_WRITEABLE | IOAS_MAP_READABLE,
        .ioas_id = address_space,
        .user_va = (uintptr_t)address,
        .length = size,
        .iova = iova,
    };
    return request(iommufd, IOAS_MAP, &map);
}
int shim_iommufd_unmap(int iommufd, uint32_t address_space, uint64_t iova, uint64_t size,
                       uint64_t *unmapped) {
    struct ioas_unmap unmap = {
        .size = sizeof unmap, .ioas_id = address_space, .iova = iova, .length = size};
    int status = request(iommufd, IOAS_UNMAP, &unmap);
    *unmapped = unmap.length;
    return status;
}
int shim_iommufd_destroy(int iommufd, uint32_t id) {
    struct ioas_destroy destroy = {.size = sizeof destroy, .id = id};
    return request(iommufd, IOAS_DESTROY, &destroy);
}

uint64_t shim_locked_memory_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return 0;
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}
