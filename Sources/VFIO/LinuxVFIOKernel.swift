internal import CSystemShims
internal import Glibc
public import HostSystem

/// The kernel itself.
public final class LinuxVFIOKernel: VFIOKernel {
    private static let rangeCount = 256

    /// Needs nothing.
    public init() {}

    /// open(2).
    public func open(_ path: String) throws(SystemError) -> FileDescriptor {
        try FileDescriptor.open(path, writable: true)
    }

    /// pread(2).
    public func read(
        _ file: FileDescriptor,
        at offset: UInt64,
        count: Int
    ) throws(SystemError) -> [UInt8] {
        try file.read(at: offset, count: count)
    }

    /// pwrite(2).
    public func write(
        _ file: FileDescriptor,
        at offset: UInt64,
        _ bytes: [UInt8]
    ) throws(SystemError) -> Int {
        try file.write(at: offset, bytes)
    }

    /// mmap(2).
    public func map(
        _ file: FileDescriptor,
        at offset: UInt64,
        length: Int
    ) throws(SystemError) -> Mapping {
        try Mapping.file(file, offset: offset, length: length)
    }

    /// RLIMIT_MEMLOCK, `VmLck` and the effective capabilities.
    public func lockedMemory() -> LockedMemory {
        var used: UInt64 = 0
        var capabilities: UInt64 = 0
        let status = HostTree.live.textIfAny("/proc/self/status") ?? ""
        for line in status.split(separator: "\n") {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count >= 2 else { continue }
            if words[0] == "VmLck:" { used = min(UInt64(words[1]) ?? 0, 1 << 50) * 1024 }
            if words[0] == "CapEff:" { capabilities = UInt64(words[1], radix: 16) ?? 0 }
        }
        // CAP_IPC_LOCK of linux/capability.h.
        return LockedMemory(
            limit: shim_locked_memory_limit(),
            used: used,
            isExempt: capabilities & (1 << 14) != 0
        )
    }

    /// VFIO_GET_API_VERSION.
    public func apiVersion(_ container: FileDescriptor) throws(SystemError) -> Int {
        try answer(shim_vfio_api_version(container.rawValue), "ask for the version of VFIO")
    }

    /// VFIO_CHECK_EXTENSION.
    public func checkExtension(
        _ container: FileDescriptor,
        _ number: UInt32
    ) throws(SystemError) -> Int {
        try answer(
            shim_vfio_check_extension(container.rawValue, number),
            "ask for VFIO extension \(number)"
        )
    }

    /// VFIO_SET_IOMMU.
    public func setIOMMU(_ container: FileDescriptor, _ type: UInt32) throws(SystemError) {
        try answer(
            shim_vfio_set_iommu(container.rawValue, type),
            "choose IOMMU type \(type) for the container"
        )
    }

    /// VFIO_IOMMU_GET_INFO.
    public func iommuAnswer(
        _ container: FileDescriptor,
        capacity: Int
    ) throws(SystemError) -> [UInt8] {
        try unsafe fill(capacity, "ask what the IOMMU can do") {
            unsafe shim_vfio_iommu_info(container.rawValue, $0, $1)
        }
    }

    /// VFIO_IOMMU_MAP_DMA.
    public func mapDMA(
        _ container: FileDescriptor,
        _ memory: Mapping,
        at iova: UInt64
    ) throws(SystemError) {
        try answer(
            unsafe shim_vfio_map_dma(
                container.rawValue,
                memory.address,
                iova,
                UInt64(memory.length)
            ),
            "map \(memory.length) bytes for the device at 0x\(String(iova, radix: 16))"
        )
    }

    /// VFIO_IOMMU_UNMAP_DMA.
    public func unmapDMA(
        _ container: FileDescriptor,
        at iova: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64 {
        var unmapped: UInt64 = 0
        try answer(
            unsafe shim_vfio_unmap_dma(container.rawValue, iova, size, &unmapped),
            "take \(size) bytes at 0x\(String(iova, radix: 16)) away from the device"
        )
        return unmapped
    }

    /// VFIO_GROUP_GET_STATUS.
    public func groupStatus(_ group: FileDescriptor) throws(SystemError) -> UInt32 {
        var flags: UInt32 = 0
        try answer(
            unsafe shim_vfio_group_status(group.rawValue, &flags),
            "read the status of an IOMMU group"
        )
        return flags
    }

    /// VFIO_GROUP_SET_CONTAINER.
    public func setContainer(
        _ group: FileDescriptor,
        _ container: FileDescriptor
    ) throws(SystemError) {
        try answer(
            shim_vfio_set_container(group.rawValue, container.rawValue),
            "put an IOMMU group into a container"
        )
    }

    /// VFIO_GROUP_UNSET_CONTAINER.
    public func unsetContainer(_ group: FileDescriptor) throws(SystemError) {
        try answer(
            shim_vfio_unset_container(group.rawValue),
            "take an IOMMU group out of its container"
        )
    }

    /// VFIO_GROUP_GET_DEVICE_FD.
    public func device(
        _ group: FileDescriptor,
        _ name: String
    ) throws(SystemError) -> FileDescriptor {
        let number = try answer(
            unsafe shim_vfio_device(group.rawValue, name),
            "take the device out of its IOMMU group"
        )
        return FileDescriptor(owning: Int32(truncatingIfNeeded: number))
    }

    /// VFIO_DEVICE_GET_INFO.
    public func deviceAnswer(_ device: FileDescriptor) throws(SystemError) -> [UInt8] {
        try unsafe fill(VFIOLayout.deviceLength, "ask what the device has") {
            unsafe shim_vfio_device_info(device.rawValue, $0, $1)
        }
    }

    /// VFIO_DEVICE_GET_REGION_INFO.
    public func regionAnswer(
        _ device: FileDescriptor,
        _ index: Int,
        capacity: Int
    ) throws(SystemError) -> [UInt8] {
        try unsafe fill(capacity, "ask for region \(index)") {
            unsafe shim_vfio_region_info(
                device.rawValue,
                UInt32(truncatingIfNeeded: index),
                $0,
                $1
            )
        }
    }

    /// VFIO_DEVICE_GET_IRQ_INFO.
    public func interruptAnswer(
        _ device: FileDescriptor,
        _ index: Int
    ) throws(SystemError) -> [UInt8] {
        try unsafe fill(VFIOLayout.interruptLength, "ask for interrupts of kind \(index)") {
            unsafe shim_vfio_irq_info(device.rawValue, UInt32(truncatingIfNeeded: index), $0, $1)
        }
    }

    /// VFIO_DEVICE_SET_IRQS.
    public func setInterrupts(
        _ device: FileDescriptor,
        _ change: VFIOInterruptChange
    ) throws(SystemError) -> Int {
        let status = unsafe change.events.withUnsafeBufferPointer { events in
            unsafe shim_vfio_set_irqs(
                device.rawValue,
                change.flags,
                UInt32(change.index.rawValue),
                UInt32(clamping: change.start),
                UInt32(clamping: change.count),
                events.isEmpty ? nil : events.baseAddress
            )
        }
        return try answer(
            status,
            "set \(change.count) interrupts of kind \(change.index.rawValue) from \(change.start)"
        )
    }

    /// VFIO_DEVICE_RESET.
    public func reset(_ device: FileDescriptor) throws(SystemError) {
        try answer(shim_vfio_reset(device.rawValue), "reset the function")
    }

    /// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.
    public func hotResetAnswer(
        _ device: FileDescriptor,
        capacity: Int
    ) throws(SystemError) -> [UInt8] {
        try unsafe fill(capacity, "ask whom a hot reset hits") {
            unsafe shim_vfio_hot_reset_info(device.rawValue, $0, $1)
        }
    }

    /// VFIO_DEVICE_IOEVENTFD.
    public func storeOnEvent(
        _ device: FileDescriptor,
        at offset: UInt64,
        value: UInt16,
        event: EventFD
    ) throws(SystemError) {
        try answer(
            shim_vfio_ioeventfd16(
                device.rawValue,
                offset,
                value,
                event.descriptor.rawValue
            ),
            "let an eventfd stand for a register"
        )
    }
}

// The character device and iommufd.
extension LinuxVFIOKernel {
    /// VFIO_DEVICE_BIND_IOMMUFD.
    public func bind(
        _ device: FileDescriptor,
        to iommufd: FileDescriptor
    ) throws(SystemError) -> UInt32 {
        var id: UInt32 = 0
        try answer(
            unsafe shim_vfio_bind_iommufd(device.rawValue, iommufd.rawValue, &id),
            "bind the device to iommufd"
        )
        return id
    }

    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT.
    public func attach(
        _ device: FileDescriptor,
        to addressSpace: UInt32
    ) throws(SystemError) {
        try answer(
            shim_vfio_attach_iommufd(device.rawValue, addressSpace),
            "attach the device to address space \(addressSpace)"
        )
    }

    /// IOMMU_IOAS_ALLOC.
    public func allocateAddressSpace(_ iommufd: FileDescriptor) throws(SystemError) -> UInt32 {
        var id: UInt32 = 0
        try answer(
            unsafe shim_iommufd_allocate(iommufd.rawValue, &id),
            "make an I/O address space"
        )
        return id
    }

    /// IOMMU_IOAS_IOVA_RANGES; at most 256 of them.
    public func addressRanges(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32
    ) throws(SystemError) -> IOMMUFDRanges {
        var pairs = [UInt64](repeating: 0, count: 2 * Self.rangeCount)
        var count = UInt32(Self.rangeCount)
        var alignment: UInt64 = 0
        let status = unsafe shim_iommufd_ranges(
            iommufd.rawValue,
            addressSpace,
            &pairs,
            &count,
            &alignment
        )
        // The kernel has more ranges than room was given: those that fit are there all the same.
        if status != -EMSGSIZE {
            try answer(status, "ask for the ranges of address space \(addressSpace)")
        }
        return IOMMUFDRanges(
            pairs: Array(pairs.prefix(2 * min(Int(count), Self.rangeCount))),
            alignment: alignment
        )
    }

    /// IOMMU_IOAS_MAP.
    public func map(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32,
        _ memory: Mapping,
        at iova: UInt64
    ) throws(SystemError) {
        try answer(
            unsafe shim_iommufd_map(
                iommufd.rawValue,
                addressSpace,
                memory.address,
                iova,
                UInt64(memory.length)
            ),
            "map \(memory.length) bytes for the device at 0x\(String(iova, radix: 16))"
        )
    }

    /// IOMMU_IOAS_UNMAP.
    public func unmap(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32,
        at iova: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64 {
        var unmapped: UInt64 = 0
        try answer(
            unsafe shim_iommufd_unmap(iommufd.rawValue, addressSpace, iova, size, &unmapped),
            "take \(size) bytes at 0x\(String(iova, radix: 16)) away from the device"
        )
        return unmapped
    }

    /// IOMMU_DESTROY.
    public func destroy(_ iommufd: FileDescriptor, _ id: UInt32) throws(SystemError) {
        try answer(shim_iommufd_destroy(iommufd.rawValue, id), "give address space \(id) back")
    }

    // EBADF and EFAULT are not always ours here: a device that is gone, and memory that is another
    // device's register window, answer with them.
    @discardableResult
    private func answer(
        _ status: Int32,
        _ operation: @autoclosure () -> String
    ) throws(SystemError) -> Int {
        guard status < 0 else { return Int(status) }
        throw SystemError(operation(), Errno(-status))
    }

    private func fill(
        _ capacity: Int,
        _ operation: String,
        _ ask: (UnsafeMutableRawPointer, UInt32) -> Int32
    ) throws(SystemError) -> [UInt8] {
        var status: Int32 = 0
        var bytes = [UInt8](repeating: 0, count: capacity)
        unsafe bytes.withUnsafeMutableBytes { buffer in
            guard let start = buffer.baseAddress else { return }
            status = unsafe ask(start, UInt32(clamping: buffer.count))
        }
        try answer(status, operation)
        return bytes
    }
}
