// VFIO and iommufd: request numbers and variable-length structures do not import. One function per
// request, no policy. Answers with capability chains go to the caller as the kernel wrote them, in a
// buffer that starts with the fixed part of the structure of linux/vfio.h; Swift checks them.
#ifndef SHIM_VFIO_H
#define SHIM_VFIO_H

#include <stddef.h>
#include <stdint.h>

/// Container: VFIO_GET_API_VERSION, VFIO_CHECK_EXTENSION, VFIO_SET_IOMMU.
int shim_vfio_api_version(int container);
int shim_vfio_check_extension(int container, uint32_t extension);
int shim_vfio_set_iommu(int container, uint32_t type);
/// VFIO_IOMMU_GET_INFO: `buffer` starts with struct vfio_iommu_type1_info; `size` at least its own.
int shim_vfio_iommu_info(int container, void *buffer, uint32_t size);
/// VFIO_IOMMU_MAP_DMA for reading and writing; VFIO_IOMMU_UNMAP_DMA, whose answer goes to `unmapped`.
int shim_vfio_map_dma(int container, const void *address, uint64_t iova, uint64_t size);
int shim_vfio_unmap_dma(int container, uint64_t iova, uint64_t size, uint64_t *unmapped);

/// Group: VFIO_GROUP_GET_STATUS (the flags), _SET_CONTAINER, _UNSET_CONTAINER, _GET_DEVICE_FD.
int shim_vfio_group_status(int group, uint32_t *flags);
int shim_vfio_set_container(int group, int container);
int shim_vfio_unset_container(int group);
/// `name` is the function's address, with " vf_token=UUID" behind it where one is needed.
int shim_vfio_device(int group, const char *name);

/// Device: VFIO_DEVICE_GET_INFO, _GET_REGION_INFO, _GET_IRQ_INFO, _GET_PCI_HOT_RESET_INFO into
/// `buffer`, which starts with the structure of that name.
int shim_vfio_device_info(int device, void *buffer, uint32_t size);
int shim_vfio_region_info(int device, uint32_t index, void *buffer, uint32_t size);
int shim_vfio_irq_info(int device, uint32_t index, void *buffer, uint32_t size);
int shim_vfio_hot_reset_info(int device, void *buffer, uint32_t size);
/// VFIO_DEVICE_SET_IRQS; `events` holds `count` descriptors (at most 2048) or is null. A value above 0
/// means that only so many vectors can be had and none was enabled.
int shim_vfio_set_irqs(int device, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
                       const int32_t *events);
int shim_vfio_reset(int device);
/// VFIO_DEVICE_IOEVENTFD: the kernel stores 16 bits at an offset of the device file per signal.
int shim_vfio_ioeventfd16(int device, uint64_t offset, uint16_t value, int event);

/// VFIO character device: VFIO_DEVICE_BIND_IOMMUFD (the device id goes to `id`) and
/// VFIO_DEVICE_ATTACH_IOMMUFD_PT.
int shim_vfio_bind_iommufd(int device, int iommufd, uint32_t *id);
int shim_vfio_attach_iommufd(int device, uint32_t address_space);
/// iommufd: IOMMU_IOAS_ALLOC, IOMMU_IOAS_IOVA_RANGES (pairs of first and last address; the number the
/// kernel has goes to `count`), IOMMU_IOAS_MAP at a fixed address, IOMMU_IOAS_UNMAP, IOMMU_DESTROY.
int shim_iommufd_allocate(int iommufd, uint32_t *address_space);
int shim_iommufd_ranges(int iommufd, uint32_t address_space, uint64_t *pairs, uint32_t *count,
                        uint64_t *alignment);
int shim_iommufd_map(int iommufd, uint32_t address_space, const void *address, uint64_t iova,
                     uint64_t size);
int shim_iommufd_unmap(int iommufd, uint32_t address_space, uint64_t iova, uint64_t size,
                       uint64_t *unmapped);
int shim_iommufd_destroy(int iommufd, uint32_t id);

/// RLIMIT_MEMLOCK's soft limit in bytes, UINT64_MAX without one.
uint64_t shim_locked_memory_limit(void);

#endif
