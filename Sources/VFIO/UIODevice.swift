internal import CSystemShims
public import GuestMemory
public import HostSystem
public import PCI
public import Virtqueue

/// A PCI function that uio_pci_generic hands to this process: BARs and configuration space through
/// sysfs, INTx through a device node, memory at physical addresses.
///
/// **Nothing confines it.** A wrong address, ours or the device's, is a write to memory of anybody. It
/// is for machines without an IOMMU, and opens only for whoever says so. There is no MSI-X.
///
/// Control path, one thread. Letting go masks INTx, ends bus mastering, unmaps BARs, closes the device
/// and frees its memory, in this order. For a process that is killed the kernel does the same: it ends
/// bus mastering when it closes the device, whose descriptor has the highest number and so goes first.
///
/// Huge pages are never swapped out, but nothing pins them: an administrator who takes memory offline, or moves
/// this process to other NUMA nodes, moves them, and the device goes on writing to where they were.
/// Only VFIO pins.
public final class UIODevice: HostFunction {
    /// Where the function is.
    public let address: PCIAddress
    /// `uio`.
    public let interface = "uio"
    /// The kernel can reset the function by itself.
    public let canReset: Bool
    /// What a loop looks after for us.
    var watching: HostFunctionWatch?

    /// How often a function that is watched is looked for.
    static let presencePeriod: UInt64 = 500

    private let host: UIOHost
    private let regions: [UIORegion]
    private let configurationSize: UInt64
    // In the order in which they are given back.
    private var windows: [Int: GuardedMapping] = [:]
    private var ports: [Int: FileDescriptor] = [:]
    private var configuration: FileDescriptor?
    private var node: FileDescriptor?
    private var memory: UIOMemory
    // The function has another driver, or is no more: nothing of it is touched again.
    private var isLost = false

    /// Opens a function that is bound to uio_pci_generic.
    ///
    /// Throws `refused` with what stands in the way and what to do about it: `pci/address`,
    /// `bind/driver`, `iommu/noiommu` without the flag, `iommu/translated`, `uio/module`,
    /// `uio/permission`, `uio/busy`, `host/locked`.
    public static func open(
        _ address: PCIAddress,
        withoutIsolation: Bool,
        in tree: HostTree = .live
    ) throws(PCIError) -> UIODevice {
        try UIODevice(
            UIOHost(tree: tree, address: address),
            withoutIsolation: withoutIsolation,
            pages: LinuxPhysicalPages()
        )
    }

    init(
        _ host: UIOHost,
        withoutIsolation: Bool,
        pages: any PhysicalPages
    ) throws(PCIError) {
        let path = try host.node(withoutIsolation: withoutIsolation)
        let configuration = try host.claim(path)
        let opened = try host.open(path)
        let node = try presenting { () throws(SystemError) in try opened.duplicateHigh() }
        let size = try presenting { () throws(SystemError) in try configuration.status().size }
        // Who may read no more than the header is shown 64 bytes.
        let shown = try presenting { () throws(SystemError) in
            try configuration.read(at: 0, count: EmulatedConfigSpace.length)
        }
        guard size >= UInt64(shown.count), shown.count == EmulatedConfigSpace.length else {
            throw host.closed(
                "\(host.folder)/config",
                SystemError("read configuration space", .accessDenied)
            )
        }
        address = host.address
        self.host = host
        self.node = node
        self.configuration = configuration
        configurationSize = size
        regions = UIORegion.list(host.tree.textIfAny("\(host.folder)/resource") ?? "")
        canReset = host.tree.exists("\(host.folder)/reset")
        memory = UIOMemory(pages, tree: host.tree)
        // Older kernels left it on when a user of the function was killed.
        stopBusMaster()
    }

    deinit {
        watching?.end()
        // Whoever took the function over by now is not to lose interrupts and bus mastering.
        if !isOurs { isLost = true }
        try? setLineMasked(true)
        stopBusMaster()
        windows = [:]
        ports = [:]
        configuration = nil
        node = nil
    }

    /// What everybody who drives a function this way must know.
    public var warning: String? {
        "no DMA isolation: \(address) can reach all memory of this machine"
    }

    private func stopBusMaster() {
        try? changeCommand { $0.subtracting(.busMaster) }
    }
}

// Configuration space and registers.
extension UIODevice {
    /// Reads configuration space; bytes beyond its end read as ones.
    public func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        let none = UInt32.max >> UInt32(32 - 8 * width.rawValue)
        guard !isLost, let at = position(offset, width), let configuration else { return none }
        return try read(configuration, at, width)
    }

    /// Writes configuration space; nothing beyond its end.
    public func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        guard !isLost, let at = position(offset, width), let configuration else { return }
        try write(configuration, at, width, value)
    }

    /// Length of a BAR in bytes, 0 when it is absent.
    public func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        regions.indices.contains(bar) ? regions[bar].size : 0
    }

    /// Reads a register; `deviceGone` once the function was taken away.
    public func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        let region = try region(bar, offset, UInt64(width.rawValue), alignment: width)
        guard !region.hasPorts else { return try read(try ports(of: bar), offset, width) }
        let window = try window(bar, region)
        let place = unsafe window.mapping.address + region.start + Int(offset)
        let value =
            switch width {
            case .byte: unsafe UInt32(shim_mmio_read8(place))
            case .word: unsafe UInt32(shim_mmio_read16(place))
            case .long: unsafe shim_mmio_read32(place)
            }
        guard !window.hasFaulted else { throw .deviceGone }
        return value
    }

    /// Writes a register; `deviceGone` once the function was taken away.
    public func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        let region = try region(bar, offset, UInt64(width.rawValue), alignment: width)
        guard !region.hasPorts else { return try write(try ports(of: bar), offset, width, value) }
        let window = try window(bar, region)
        let place = unsafe window.mapping.address + region.start + Int(offset)
        switch width {
        case .byte: unsafe shim_mmio_write8(place, UInt8(truncatingIfNeeded: value))
        case .word: unsafe shim_mmio_write16(place, UInt16(truncatingIfNeeded: value))
        case .long: unsafe shim_mmio_write32(place, value)
        }
        guard !window.hasFaulted else { throw .deviceGone }
    }

    /// Maps part of a BAR; `notSupported` for ports.
    public func mapWindow(
        _ bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(PCIError) -> BARWindow {
        let region = try region(bar, offset, size, alignment: .byte)
        let window = try window(bar, region)
        return unsafe BARWindow(
            address: window.mapping.address + region.start + Int(offset),
            size: size,
            owner: window
        )
    }

    /// The doorbell of a 16-bit register: its mapped address.
    public func doorbell(
        _ bar: Int,
        _ offset: UInt64,
        value: UInt16
    ) throws(PCIError) -> Doorbell {
        let region = try region(bar, offset, 2, alignment: .word)
        let window = try window(bar, region)
        return unsafe Doorbell(
            register: window.mapping.address + region.start + Int(offset),
            value: value
        )
    }

    private func position(_ offset: Int, _ width: AccessWidth) -> UInt64? {
        guard let at = UInt64(exactly: offset), at <= configurationSize,
            UInt64(width.rawValue) <= configurationSize - at
        else { return nil }
        return at
    }

    private func region(
        _ bar: Int,
        _ offset: UInt64,
        _ size: UInt64,
        alignment: AccessWidth
    ) throws(PCIError) -> UIORegion {
        guard !isLost else { throw .deviceGone }
        guard regions.indices.contains(bar), size > 0, regions[bar].holds(offset, size),
            offset % UInt64(alignment.rawValue) == 0
        else { throw .range(bar: bar, offset: offset, size: size) }
        return regions[bar]
    }

    // The whole BAR is mapped at its first use and stays so.
    private func window(_ bar: Int, _ region: UIORegion) throws(PCIError) -> GuardedMapping {
        if let window = windows[bar] { return window }
        guard !region.hasPorts, let length = region.mappedLength else {
            throw .notSupported("mapping BAR \(bar) of \(address)")
        }
        let path = "\(host.folder)/resource\(bar)"
        let file = try host.open(path)
        do throws(SystemError) {
            let window = try GuardedMapping(try Mapping.file(file, offset: 0, length: length))
            windows[bar] = window
            return window
        } catch {
            throw error.errno == .notPermitted ? host.closed(path, error) : .system(error)
        }
    }

    private func ports(of bar: Int) throws(PCIError) -> FileDescriptor {
        if let file = ports[bar] { return file }
        let file = try host.open("\(host.folder)/resource\(bar)")
        ports[bar] = file
        return file
    }

    private func read(
        _ file: FileDescriptor,
        _ position: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        let bytes = try presenting { () throws(SystemError) in
            try file.read(at: position, count: width.rawValue)
        }
        return width.value(of: bytes)
    }

    private func write(
        _ file: FileDescriptor,
        _ position: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        let bytes = width.bytes(of: value)
        let taken = try presenting { () throws(SystemError) in
            try file.write(at: position, bytes)
        }
        guard taken == bytes.count else {
            throw .system(SystemError("write \(bytes.count) bytes of the function", .ioFailure))
        }
    }
}

// Interrupts.
extension UIODevice {
    /// No vector: uio_pci_generic has INTx only.
    public func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        throw .vector(vector)
    }

    /// 0: uio_pci_generic has INTx only.
    public var interruptVectorCount: Int { get throws(PCIError) { 0 } }

    /// Tells of INTx where asked for, and that the function was unbound or removed: then no register
    /// of it is touched any more, because somebody else may have it.
    public func watch(
        on loop: EventLoop,
        line: Bool,
        _ tell: @escaping (HostFunctionEvent) -> Void
    ) throws(PCIError) {
        stopWatching()
        guard let node else { throw .deviceGone }
        let pin = try readConfiguration(ConfigurationHeader.interruptLine + 1, .byte)
        guard !line || (1...4).contains(pin) else { throw .vector(0) }
        let watch = HostFunctionWatch(loop)
        watching = watch
        try watch.add(node) { [weak watch] in
            do {
                // The count since boot; the driver has masked INTx in the command register.
                if try !node.readNow(count: 4).isEmpty, line { tell(.line) }
            } catch {
                // A function without an interrupt says so for ever, and so does one that is gone.
                watch?.endDescriptors()
            }
        }
        // Kernels wake nobody when the function is unbound or removed, and do not wait for us either.
        watch.repeating(everyMilliseconds: Self.presencePeriod) { [weak self] in
            guard let self, self.isGone else { return }
            self.isLost = true
            self.stopWatching()
            tell(.gone)
        }
        if line { try setLineMasked(false) }
    }

    // The kernel does not wait for us when it takes the function from its driver.
    private var isOurs: Bool {
        host.tree.linkName("\(host.folder)/driver") == UIOHost.driver
    }

    private var isGone: Bool {
        if !isOurs { return true }
        let vendor = try? readConfiguration(ConfigurationHeader.vendor, .word)
        return vendor == nil || vendor == 0xffff
    }

    /// Tells nothing any more.
    public func stopWatching() {
        watching?.end()
        watching = nil
    }

    /// Masks INTx in the command register, as the kernel's driver does at each interrupt, or lets it
    /// come again.
    public func setLineMasked(_ isMasked: Bool) throws(PCIError) {
        try changeCommand {
            isMasked ? $0.union(.interruptDisable) : $0.subtracting(.interruptDisable)
        }
    }
}

// Memory and reset.
extension UIODevice {
    /// Makes an arena of huge pages that follow each other in memory, at their physical address.
    /// Throws `huge/…` and `dma/physical-address`.
    public func makeArena(size: Int) throws(PCIError) -> DMAArena { try memory.make(size) }

    /// Forgets an arena. The function can still reach it: nothing here could keep it from doing so.
    public func releaseArena(_ arena: DMAArena) throws(PCIError) { memory.release(arena) }

    /// Nothing to do for arenas of this function; others are at no address that it could use.
    public func mapDMA(_ arena: DMAArena) throws(PCIError) {
        guard memory.arenas.contains(where: { $0 === arena }) else {
            throw .refused(
                HostRefusal(
                    "dma/range",
                    "without an IOMMU, memory has no other address than its own",
                    remedy: "let the function make the arena"
                )
            )
        }
    }

    /// Forgets an arena.
    public func unmapDMA(_ arena: DMAArena) throws(PCIError) { memory.release(arena) }

    /// Resets the function, which keeps its configuration; `notSupported` where the kernel has no way
    /// to.
    public func reset() throws(PCIError) {
        guard canReset else {
            throw .notSupported("a reset of \(address): the kernel has no method for it")
        }
        let attributes = KernelAttributes(host.tree)
        try presenting { () throws(SystemError) in
            try attributes.write("1", to: "\(host.folder)/reset")
        }
    }
}
