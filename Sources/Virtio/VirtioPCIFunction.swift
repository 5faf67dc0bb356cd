internal import GuestMemory
public import HostSystem
public import PCI
internal import VirtioSpec
internal import Virtqueue

/// Presents a `VirtioDevice` as a PCI function: the registers of virtio 1.3 §4.1 in BAR 0 and, when
/// the device is a `PeerWindowProvider`, its windows in BAR 2 and BAR 4 and the peer-notify structure.
///
/// Whatever a driver writes is obeyed, ignored or refused, never trusted: every access of every
/// width at every offset is safe, also between two registers (HI-H2).
public final class VirtioPCIFunction: PCIEndpoint {
    /// The device behind the registers.
    public let device: any VirtioDevice

    /// Accesses that were ignored or refused, by error id.
    public internal(set) var incidents = IncidentCounters()

    /// Why the device last asked for a reset; kept until the next reset.
    public internal(set) var fault: DeviceFault?

    let layout: VirtioBARLayout
    let provider: (any PeerWindowProvider)?
    var space: EmulatedConfigSpace
    var vectors: MSIXTable
    var registers: CommonRegisters
    var interruptStatus: UInt8 = 0
    private(set) weak var host: (any PCIHost)?
    private var context: PCIDeviceContext?
    private let vectorControl: Int
    private let accessWindow: Int

    /// Presents `device`, with one MSI-X vector per queue and one for configuration changes unless
    /// told otherwise.
    public init(
        device: any VirtioDevice,
        identity: PCIIdentity? = nil,
        vectorCount: Int? = nil
    ) throws(PCIError) {
        let queueCount = device.queueLimits.count
        guard queueCount <= VirtioBARLayout.maximumQueueCount else {
            throw .notSupported("\(queueCount) queues, the limit is 1024")
        }
        let configurationLength = device.configuration.count
        guard configurationLength <= Int(VirtioBARLayout.page) else {
            throw .notSupported("\(configurationLength) bytes of configuration, the limit is 4096")
        }
        guard let identity = identity ?? Self.identity(of: device.type) else {
            throw .notSupported("a PCI device id for \(device.type)")
        }
        let provider = device as? any PeerWindowProvider
        let layout = VirtioBARLayout(
            queueCount: queueCount,
            configurationLength: configurationLength,
            hasPeerNotify: provider != nil
        )
        let count = min(MSIXTable.maximumCount, max(1, vectorCount ?? queueCount + 1))
        let vectors = MSIXTable(count: count)
        var space = EmulatedConfigSpace(identity)
        let windows = Self.windows(of: provider)
        try Self.addBARs(&space, windows)
        let vectorCapability = try Self.add(
            vectors.capability(
                bar: VirtioBARLayout.bar,
                table: UInt32(VirtioBARLayout.vectors),
                pendingBits: UInt32(VirtioBARLayout.pendingBits)
            ),
            MSIXTable.capabilityMask,
            to: &space
        )
        var accessWindow = 0
        for capability in layout.capabilities(windows: windows) {
            let isAccess = capability.type == .configurationAccess
            let at = try Self.add(
                capability.encoded(),
                isAccess ? Self.accessMask : [],
                to: &space
            )
            if isAccess { accessWindow = at }
        }
        self.device = device
        self.layout = layout
        self.provider = provider
        self.space = space
        self.vectors = vectors
        self.accessWindow = accessWindow
        vectorControl = vectorCapability + MSIXTable.controlOffset
        registers = CommonRegisters(device: device, queueCount: queueCount, vectorCount: count)
    }

    /// Length of a BAR.
    public func barSize(_ bar: Int) -> UInt64 { space.bar(bar)?.size ?? 0 }

    /// Who serves the function from now on.
    public func attach(_ host: any PCIHost) {
        self.host = host
    }

    /// Devices ask for the memory table whenever they use it; those with threads are told.
    public func memoryChanged() {
        guard context != nil else { return }
        (device as? any DriverMemoryObserver)?.driverMemoryChanged()
    }

    /// True while a thread of the device did not let go of memory, be it of a driver before this one.
    public var isFormerMemoryInUse: Bool {
        (device as? any DriverMemoryObserver)?.isFormerMemoryInUse ?? false
    }

    /// Devices that care are told; then everything is as after power-on. Nothing that the lost driver
    /// set up is used on the memory that the next client shows (VFU-S-60, HI-G34).
    public func clientGone() {
        if context != nil { (device as? any DriverObserver)?.driverLost() }
        reset()
    }

    /// The windows of a `PeerWindowProvider` are BAR 2 and BAR 4.
    public func window(_ bar: Int) -> Mapping? {
        switch bar {
        case VirtioBARLayout.windowBAR: provider?.peerWindow
        case VirtioBARLayout.secondWindowBAR: provider?.secondPeerWindow
        default: nil
        }
    }

    /// The file behind a window, where its device says so.
    public func windowFile(_ bar: Int) -> WindowFile? {
        window(bar) == nil ? nil : provider?.peerWindowFile(bar)
    }

    /// The eventfd that a slot of the peer-notify structure stands for.
    public func doorbellDescriptor(_ bar: Int, _ offset: UInt64) -> Int32? {
        guard bar == VirtioBARLayout.bar, case (.peerNotify, let at)? = layout.structure(at: offset)
        else { return nil }
        return peerSlot(at).flatMap { provider?.peerDoorbells.descriptor($0) }
    }

    /// Function-level reset: the device stops first, then everything is as after power-on (HI-H24).
    public func reset() {
        resetDevice()
        space.reset()
        vectors.reset()
    }

    /// Reads configuration space. A read of the access window's data reads the BAR it points to.
    public func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        if touchesAccessData(offset, width), let target = accessTarget() {
            let value = readMemory(target.bar, target.offset, target.width)
            space.set(
                accessWindow + VirtioCapability.accessBytes,
                value,
                target.width.rawValue
            )
        }
        space.isInterruptPending = interruptStatus != 0 && !vectors.isEnabled
        return space.read(offset, width)
    }

    /// Writes configuration space. A write to the access window's data writes the BAR it points to.
    public func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        let before = space
        space.write(offset, width, value)
        if touchesAccessData(offset, width) {
            if let target = accessTarget() {
                let bytes = accessWindow + VirtioCapability.accessBytes
                writeMemory(target.bar, target.offset, target.width, space.read(bytes, .long))
            } else {
                space = before
                incidents.count("region/range")
            }
        }
        vectors.setControl(UInt16(truncatingIfNeeded: space.read(vectorControl, .word)))
        // Without bus mastering nothing is reached (HI-H23): other memory than before.
        if before.command.contains(.busMaster) != space.command.contains(.busMaster) {
            memoryChanged()
        }
        deliverPending()
    }

    /// Reads a register; ones while memory decoding is off (HI-H23).
    public func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        guard space.command.contains(.memorySpace) else {
            return UInt32.max >> UInt32(32 - 8 * width.rawValue)
        }
        return readMemory(bar, offset, width)
    }

    /// Writes a register; nothing while memory decoding is off (HI-H23).
    public func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) {
        guard space.command.contains(.memorySpace) else { return }
        writeMemory(bar, offset, width, value)
        deliverPending()
    }
}

// What register writes lead to.
extension VirtioPCIFunction {
    /// What the device can reach: nothing while bus mastering is off (HI-H23).
    var reachableMemory: MemoryTable {
        guard space.command.contains(.busMaster) else { return .empty }
        return host?.memory ?? .empty
    }

    func apply(_ effect: CommonRegisters.Effect) {
        switch effect {
        case .none: break
        case .refused(let id): incidents.count(id)
        case .reset: resetDevice()
        case .start:
            let context = PCIDeviceContext(self, registers.features.driverFeatures)
            self.context = context
            device.activate(context)
        case .resetQueue(let queue): (device as? any QueueResettable)?.queueReset(queue)
        case .enableQueue(let queue): (device as? any QueueResettable)?.queueEnabled(queue)
        }
    }

    func resetDevice() {
        if let context {
            device.deactivate()
            context.end()
            self.context = nil
        }
        registers.reset()
        interruptStatus = 0
        fault = nil
    }

    func fail(_ fault: DeviceFault) {
        if self.fault == nil { self.fault = fault }
        incidents.count(fault.id)
        if registers.status.demandReset() { interruptConfiguration() }
    }

    func interruptQueue(_ index: Int) {
        guard registers.queues.indices.contains(index) else { return }
        send(registers.queues[index].vector, statusBit: 1)
    }

    func interruptConfiguration() {
        interruptStatus |= 2
        send(registers.configurationVector, statusBit: 2)
    }

    private func send(_ vector: UInt16, statusBit: UInt8) {
        guard vectors.isEnabled else {
            interruptStatus |= statusBit
            return
        }
        if vectors.fire(Int(vector), canSend: space.command.contains(.busMaster)) {
            host?.raise(Int(vector))
        }
    }

    private func deliverPending() {
        guard space.command.contains(.busMaster) else { return }
        for vector in vectors.takeDeliverable() { host?.raise(vector) }
    }
}

// Building configuration space, and the window to BARs in it.
extension VirtioPCIFunction {
    /// Ids of a device type (virtio 1.3 §4.1.2.1); network devices say that they are Ethernet.
    static func identity(of type: DeviceType) -> PCIIdentity? {
        guard let device = type.pciDeviceID else { return nil }
        return PCIIdentity(
            vendor: PCITransport.vendor,
            device: device,
            subsystem: 0x1100,
            classCode: type == .net || type == .vhostPCINet ? 0x020000 : 0xff0000
        )
    }

    private static let accessMask: [UInt8] =
        [0, 0, 0, 0, 0xff, 0, 0, 0] + [UInt8](repeating: 0xff, count: 12)

    private static func addBARs(
        _ space: inout EmulatedConfigSpace,
        _ windows: [(bar: Int, length: UInt64)]
    ) throws(PCIError) {
        guard let registers = BaseAddressRegister(size: VirtioBARLayout.length) else {
            preconditionFailure("BAR 0 is no power of two")
        }
        space.setBAR(VirtioBARLayout.bar, registers)
        for (bar, length) in windows {
            guard
                let window = BaseAddressRegister(size: length, is64Bit: true, isPrefetchable: true)
            else { throw .notSupported("a window of \(length) bytes, which is no power of two") }
            space.setBAR(bar, window)
        }
    }

    private static func windows(
        of provider: (any PeerWindowProvider)?
    ) -> [(bar: Int, length: UInt64)] {
        guard let provider else { return [] }
        let first = (VirtioBARLayout.windowBAR, UInt64(provider.peerWindow.length))
        guard let second = provider.secondPeerWindow else { return [first] }
        return [first, (VirtioBARLayout.secondWindowBAR, UInt64(second.length))]
    }

    private static func add(
        _ capability: [UInt8],
        _ writable: [UInt8],
        to space: inout EmulatedConfigSpace
    ) throws(PCIError) -> Int {
        guard let at = space.addCapability(capability, writable: writable) else {
            throw .capability("no room for another capability")
        }
        return at
    }

    private func touchesAccessData(_ offset: Int, _ width: AccessWidth) -> Bool {
        let first = accessWindow + VirtioCapability.accessBytes
        return (0..<width.rawValue).contains { (first..<first + 4).contains(offset &+ $0) }
    }

    /// Where the access window points to; `nil` unless length, alignment and place are all good
    /// (HI-H18).
    private func accessTarget() -> (bar: Int, offset: UInt64, width: AccessWidth)? {
        let bar = Int(space.read(accessWindow + VirtioCapability.accessBAR, .byte))
        let offset = UInt64(space.read(accessWindow + VirtioCapability.accessOffset, .long))
        let length = space.read(accessWindow + VirtioCapability.accessLength, .long)
        guard let width = Int(exactly: length).flatMap(AccessWidth.init(rawValue:)),
            offset % UInt64(length) == 0
        else { return nil }
        let isInside =
            switch bar {
            case VirtioBARLayout.bar: layout.isInsideStructure(offset, UInt64(length))
            case VirtioBARLayout.windowBAR, VirtioBARLayout.secondWindowBAR:
                offset + UInt64(length) <= barSize(bar)
            default: false
            }
        return isInside ? (bar, offset, width) : nil
    }
}
