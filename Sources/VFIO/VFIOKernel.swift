public import HostSystem

/// What the kernel does for VFIO: one method per request, nothing decided here. Tests play it.
///
/// Answers of variable length come as the bytes that the kernel wrote, fixed structure of
/// `linux/vfio.h` first; whoever uses them checks them. Every refusal is thrown with its error number.
public protocol VFIOKernel: AnyObject {
    /// Opens a device node for reading and writing.
    func open(_ path: String) throws(SystemError) -> FileDescriptor
    /// Reads at an offset of a device file.
    func read(_ file: FileDescriptor, at: UInt64, count: Int) throws(SystemError) -> [UInt8]
    /// Writes at an offset of a device file; returns how many bytes were taken.
    func write(_ file: FileDescriptor, at: UInt64, _ bytes: [UInt8]) throws(SystemError) -> Int
    /// Maps part of a device file.
    func map(_ file: FileDescriptor, at: UInt64, length: Int) throws(SystemError) -> Mapping
    /// What this process may pin.
    func lockedMemory() -> LockedMemory

    /// VFIO_GET_API_VERSION.
    func apiVersion(_ container: FileDescriptor) throws(SystemError) -> Int
    /// VFIO_CHECK_EXTENSION; 0 when the kernel does not have it.
    func checkExtension(_ container: FileDescriptor, _ number: UInt32) throws(SystemError) -> Int
    /// VFIO_SET_IOMMU.
    func setIOMMU(_ container: FileDescriptor, _ type: UInt32) throws(SystemError)
    /// VFIO_IOMMU_GET_INFO.
    func iommuAnswer(_ container: FileDescriptor, capacity: Int) throws(SystemError) -> [UInt8]
    /// VFIO_IOMMU_MAP_DMA, for reading and writing.
    func mapDMA(
        _ container: FileDescriptor,
        _ memory: Mapping,
        at iova: UInt64
    ) throws(SystemError)
    /// VFIO_IOMMU_UNMAP_DMA; returns the bytes taken away.
    func unmapDMA(
        _ container: FileDescriptor,
        at iova: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64

    /// VFIO_GROUP_GET_STATUS; returns the flags.
    func groupStatus(_ group: FileDescriptor) throws(SystemError) -> UInt32
    /// VFIO_GROUP_SET_CONTAINER.
    func setContainer(_ group: FileDescriptor, _ container: FileDescriptor) throws(SystemError)
    /// VFIO_GROUP_UNSET_CONTAINER.
    func unsetContainer(_ group: FileDescriptor) throws(SystemError)
    /// VFIO_GROUP_GET_DEVICE_FD.
    func device(_ group: FileDescriptor, _ name: String) throws(SystemError) -> FileDescriptor

    /// VFIO_DEVICE_GET_INFO.
    func deviceAnswer(_ device: FileDescriptor) throws(SystemError) -> [UInt8]
    /// VFIO_DEVICE_GET_REGION_INFO.
    func regionAnswer(
        _ device: FileDescriptor,
        _ index: Int,
        capacity: Int
    ) throws(SystemError) -> [UInt8]
    /// VFIO_DEVICE_GET_IRQ_INFO.
    func interruptAnswer(_ device: FileDescriptor, _ index: Int) throws(SystemError) -> [UInt8]
    /// VFIO_DEVICE_SET_IRQS. Above 0: only so many vectors can be had, and none was enabled.
    func setInterrupts(
        _ device: FileDescriptor,
        _ change: VFIOInterruptChange
    ) throws(SystemError) -> Int
    /// VFIO_DEVICE_RESET.
    func reset(_ device: FileDescriptor) throws(SystemError)
    /// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.
    func hotResetAnswer(_ device: FileDescriptor, capacity: Int) throws(SystemError) -> [UInt8]
    /// VFIO_DEVICE_IOEVENTFD for a store of 16 bits at an offset of the device file.
    func storeOnEvent(
        _ device: FileDescriptor,
        at: UInt64,
        value: UInt16,
        event: EventFD
    ) throws(SystemError)

    /// VFIO_DEVICE_BIND_IOMMUFD; returns the device's id.
    func bind(_ device: FileDescriptor, to iommufd: FileDescriptor) throws(SystemError) -> UInt32
    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT.
    func attach(_ device: FileDescriptor, to addressSpace: UInt32) throws(SystemError)
    /// IOMMU_IOAS_ALLOC; returns the address space's id.
    func allocateAddressSpace(_ iommufd: FileDescriptor) throws(SystemError) -> UInt32
    /// IOMMU_IOAS_IOVA_RANGES.
    func addressRanges(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32
    ) throws(SystemError) -> IOMMUFDRanges
    /// IOMMU_IOAS_MAP at a fixed address.
    func map(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32,
        _ memory: Mapping,
        at iova: UInt64
    ) throws(SystemError)
    /// IOMMU_IOAS_UNMAP; returns the bytes taken away.
    func unmap(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32,
        at iova: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64
    /// IOMMU_DESTROY.
    func destroy(_ iommufd: FileDescriptor, _ id: UInt32) throws(SystemError)
}

/// A change of interrupts, as VFIO_DEVICE_SET_IRQS takes it.
public struct VFIOInterruptChange: Hashable, Sendable {
    /// VFIO_IRQ_SET_* flags.
    public let flags: UInt32
    /// Which kind of interrupt.
    public let index: VFIOInterruptIndex
    /// First vector.
    public let start: Int
    /// Number of vectors; 0 with a trigger of no data switches all off.
    public let count: Int
    /// One eventfd per vector, -1 for none; empty when the change carries none.
    public let events: [Int32]

    /// Names a change.
    public init(
        flags: UInt32,
        index: VFIOInterruptIndex,
        start: Int,
        count: Int,
        events: [Int32] = []
    ) {
        self.flags = flags
        self.index = index
        self.start = start
        self.count = count
        self.events = events
    }
}

/// The kinds of interrupts of a VFIO PCI device (VFIO_PCI_*_IRQ_INDEX).
public enum VFIOInterruptIndex: Int, Sendable, CaseIterable {
    /// INTx.
    case line
    /// MSI.
    case message
    /// MSI-X.
    case messageExtended
    /// An uncorrectable error was reported.
    case error
    /// The kernel wants the device back.
    case request
}

/// What a process has pinned and may pin.
public struct LockedMemory: Hashable, Sendable {
    /// RLIMIT_MEMLOCK in bytes, `UInt64.max` without limit.
    public let limit: UInt64
    /// Bytes that are pinned.
    public let used: UInt64
    /// The limit does not bind this process (CAP_IPC_LOCK).
    public let isExempt: Bool

    /// Describes a process.
    public init(limit: UInt64, used: UInt64, isExempt: Bool) {
        self.limit = limit
        self.used = used
        self.isExempt = isExempt
    }
}

/// The addresses that an iommufd address space can map.
public struct IOMMUFDRanges: Hashable, Sendable {
    /// First and last address of each range.
    public let pairs: [UInt64]
    /// What an address must be a multiple of.
    public let alignment: UInt64

    /// Takes the kernel's answer.
    public init(pairs: [UInt64], alignment: UInt64) {
        self.pairs = pairs
        self.alignment = alignment
    }
}
