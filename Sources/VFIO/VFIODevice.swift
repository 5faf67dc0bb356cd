public import GuestMemory
public import HostSystem
public import PCI
public import Virtqueue

/// A PCI function that the kernel hands to this process through VFIO: its memory accesses are confined
/// by an IOMMU, its interrupts come as eventfds.
///
/// Control path, one thread. Registers are read and written through the device file, which answers
/// errors with error numbers; only doorbells and windows are mapped. Letting go of the object switches
/// interrupts and bus mastering off, closes the device, then takes its memory away, then gives the
/// group back. A process that is killed leaves the same to the kernel.
///
///     let function = try VFIODevice.open(address)
///     let transport = try PCITransport(function: function)
public final class VFIODevice: HostFunction {
    /// Where the function is.
    public let address: PCIAddress
    /// `group` or `iommufd`: the interface of the kernel in use.
    public let interface: String
    /// The kernel can reset the function by itself (FLR, or its like).
    public let canReset: Bool
    /// Nothing: an IOMMU confines the function.
    public var warning: String? { nil }
    /// What a loop looks after for us.
    var watching: HostFunctionWatch?

    private let kernel: any VFIOKernel
    private let regions: [VFIORegion]
    private let configuration: VFIORegion
    // In the order in which they are given back.
    private var interrupts: [VFIOInterruptIndex: VFIOInterrupts]
    private var windows: [Int: [GuardedMapping?]] = [:]
    private var doorbells: [EventFD] = []
    private var file: FileDescriptor?
    private var memory: VFIODMA?

    /// Opens a function that is bound to vfio-pci, by its own character device where the kernel has
    /// one, else by its IOMMU group.
    ///
    /// Throws `refused` with what stands in the way and what to do about it: `pci/address`,
    /// `iommu/off`, `vfio/module`, `bind/driver`, `vfio/permission`, `vfio/busy`, `vfio/group`,
    /// `vfio/token`. `tree` is where `/sys`, `/dev` and `/proc` are found; `token` the UUID that a
    /// virtual function's physical function asks for.
    public static func open(
        _ address: PCIAddress,
        kernel: any VFIOKernel = LinuxVFIOKernel(),
        in tree: HostTree = .live,
        token: String? = nil
    ) throws(PCIError) -> VFIODevice {
        let host = VFIOHost(tree: tree, address: address)
        switch try host.entrance() {
        case .character(let node):
            let space = try IOMMUFD(node, host: host, kernel: kernel, token: token)
            return try VFIODevice(address, "iommufd", kernel, space.device, space)
        case .group(let number):
            let group = try VFIOGroup(number, host: host, kernel: kernel)
            let container = try VFIOContainer(group, host: host, kernel: kernel)
            let file = try group.device(host, token: token)
            return try VFIODevice(address, "group", kernel, file, container)
        }
    }

    private init(
        _ address: PCIAddress,
        _ interface: String,
        _ kernel: any VFIOKernel,
        _ file: FileDescriptor,
        _ space: any VFIOAddressSpace
    ) throws(PCIError) {
        let description = try VFIODescription(file, kernel)
        self.address = address
        self.interface = interface
        self.kernel = kernel
        canReset = description.canReset
        regions = description.bars
        configuration = description.configuration
        var interrupts: [VFIOInterruptIndex: VFIOInterrupts] = [:]
        for index in VFIOInterruptIndex.allCases {
            interrupts[index] = try VFIOInterrupts(index, device: file, kernel: kernel)
        }
        self.interrupts = interrupts
        self.file = file
        memory = try VFIODMA(space, kernel: kernel)
    }

    deinit {
        watching?.end()
        for index in VFIOInterruptIndex.allCases { try? interrupts[index]?.disable() }
        stopBusMaster()
        doorbells = []
        windows = [:]
        // Each kind of interrupt holds the device's file, too.
        interrupts = [:]
        file = nil
        memory?.clear()
        memory = nil
    }

    // A device that still wrote while its memory is taken away would only fault, but loudly.
    private func stopBusMaster() {
        guard let command = try? readConfiguration(ConfigurationHeader.command, .word),
            command != 0xffff
        else { return }
        let rest = command & ~UInt32(CommandRegister.busMaster.rawValue)
        try? writeConfiguration(ConfigurationHeader.command, .word, rest)
    }
}

// Configuration space and registers.
extension VFIODevice {
    /// Reads configuration space; bytes beyond its end read as ones.
    public func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        guard let at = UInt64(exactly: offset),
            configuration.holds(at, UInt64(width.rawValue))
        else { return UInt32.max >> UInt32(32 - 8 * width.rawValue) }
        return try read(configuration.offset + at, width)
    }

    /// Writes configuration space; nothing beyond its end.
    public func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        guard let at = UInt64(exactly: offset),
            configuration.holds(at, UInt64(width.rawValue))
        else { return }
        try write(configuration.offset + at, width, value)
    }

    /// Length of a BAR in bytes, 0 when it is absent.
    public func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        regions.indices.contains(bar) ? regions[bar].size : 0
    }

    /// Reads a register through the device file. `deviceGone` when the function does not answer.
    public func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        let region = try region(bar, offset, UInt64(width.rawValue))
        do {
            return try read(region.offset + offset, width)
        } catch {
            throw explain(error)
        }
    }

    /// Writes a register through the device file.
    public func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        let region = try region(bar, offset, UInt64(width.rawValue))
        do {
            try write(region.offset + offset, width, value)
        } catch {
            throw explain(error)
        }
    }

    private func region(
        _ bar: Int,
        _ offset: UInt64,
        _ size: UInt64
    ) throws(PCIError) -> VFIORegion {
        guard regions.indices.contains(bar), size > 0, regions[bar].holds(offset, size) else {
            throw .range(bar: bar, offset: offset, size: size)
        }
        return regions[bar]
    }

    // The kernel answers EIO while memory decoding is off, and when the function is gone.
    private func explain(_ error: PCIError) -> PCIError {
        guard case .system(let cause) = error, cause.errno == .ioFailure else { return error }
        guard let vendor = try? readConfiguration(ConfigurationHeader.vendor, .word) else {
            return .deviceGone
        }
        return vendor == 0xffff ? .deviceGone : error
    }

    private func read(_ position: UInt64, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        let bytes = try presenting { () throws(SystemError) in
            try kernel.read(try opened(), at: position, count: width.rawValue)
        }
        return width.value(of: bytes)
    }

    private func write(
        _ position: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        let bytes = width.bytes(of: value)
        let taken = try presenting { () throws(SystemError) in
            try kernel.write(try opened(), at: position, bytes)
        }
        guard taken == bytes.count else {
            throw .system(SystemError("write \(bytes.count) bytes of the function", .ioFailure))
        }
    }

    private func opened() throws(SystemError) -> FileDescriptor {
        guard let file else { throw SystemError("use a closed function", .noDevice) }
        return file
    }
}

// Mapped parts of BARs.
extension VFIODevice {
    /// Maps part of a BAR; `notSupported` where the kernel does not let it be mapped.
    public func mapWindow(
        _ bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(PCIError) -> BARWindow {
        let region = try region(bar, offset, size)
        guard let (window, start) = try window(bar, region, offset, size) else {
            throw .notSupported("mapping \(size) bytes at \(offset) of BAR \(bar)")
        }
        return unsafe BARWindow(
            address: window.mapping.address + Int(offset - start),
            size: size,
            owner: window
        )
    }

    /// The doorbell of a 16-bit register: its mapped address, or, where that page cannot be mapped,
    /// an eventfd for which the kernel writes the register.
    public func doorbell(
        _ bar: Int,
        _ offset: UInt64,
        value: UInt16
    ) throws(PCIError) -> Doorbell {
        let region = try region(bar, offset, 2)
        guard offset % 2 == 0 else { throw .range(bar: bar, offset: offset, size: 2) }
        if let (window, start) = try window(bar, region, offset, 2) {
            return unsafe Doorbell(
                register: window.mapping.address + Int(offset - start),
                value: value
            )
        }
        let event: EventFD
        do throws(SystemError) {
            event = try EventFD()
            try kernel.storeOnEvent(
                try opened(),
                at: region.offset + offset,
                value: value,
                event: event
            )
        } catch {
            throw VFIOHost.tooOld(error, "eventfds that stand for registers", since: "4.17")
                ?? .system(error)
        }
        doorbells.append(event)
        return Doorbell(eventDescriptor: event.descriptor.rawValue)
    }

    // The whole part is mapped at its first use and stays so.
    private func window(
        _ bar: Int,
        _ region: VFIORegion,
        _ offset: UInt64,
        _ size: UInt64
    ) throws(PCIError) -> (GuardedMapping, start: UInt64)? {
        guard let part = region.part(holding: offset, size),
            let index = region.mappable.firstIndex(of: part),
            let length = Int(exactly: part.upperBound - part.lowerBound)
        else { return nil }
        var row = windows[bar] ?? [GuardedMapping?](repeating: nil, count: region.mappable.count)
        if let window = row[index] { return (window, part.lowerBound) }
        let window = try presenting { () throws(SystemError) in
            let mapping = try kernel.map(
                try opened(),
                at: region.offset + part.lowerBound,
                length: length
            )
            return try GuardedMapping(mapping)
        }
        row[index] = window
        windows[bar] = row
        return (window, part.lowerBound)
    }
}

// Interrupts.
extension VFIODevice {
    /// Delivers an MSI-X vector to an eventfd; `nil` takes it away.
    public func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        try interrupts[.messageExtended]?.connect(vector, to: event)
    }

    /// Number of MSI-X vectors, 0 for a function without.
    public var interruptVectorCount: Int {
        get throws(PCIError) { interrupts[.messageExtended]?.count ?? 0 }
    }

    /// Delivers INTx, MSI, error or give-back interrupts to an eventfd; `nil` takes it away.
    ///
    /// INTx stays masked after each delivery until `setLineMasked(false)`. `request` is signalled when
    /// the kernel wants the device back, as for an unbind: whoever waits there waits for our close.
    public func connect(
        _ index: VFIOInterruptIndex,
        vector: Int = 0,
        to event: EventFD?
    ) throws(PCIError) {
        try interrupts[index]?.connect(vector, to: event)
    }

    /// Number of vectors of a kind, 0 when the function or the kernel does not have it.
    public func count(of index: VFIOInterruptIndex) -> Int { interrupts[index]?.count ?? 0 }

    /// Masks INTx, or lets it come again.
    public func setLineMasked(_ isMasked: Bool) throws(PCIError) {
        try interrupts[.line]?.setMasked(0, isMasked)
    }
}

// Memory and reset.
extension VFIODevice {
    /// Makes an arena inside the IOMMU's address ranges; from 2 MiB on in huge pages where the host
    /// has some free. Throws `limit/memlock` or `limit/dma-entries` before anything is pinned.
    public func makeArena(size: Int) throws(PCIError) -> DMAArena {
        guard var memory else { throw .notSupported("an arena of a closed function") }
        defer { self.memory = memory }
        return try memory.make(size)
    }

    /// Unmaps an arena and takes its address back.
    public func releaseArena(_ arena: DMAArena) throws(PCIError) { try unmapDMA(arena) }

    /// Maps an arena at its own device address; `dma/range` where the IOMMU cannot.
    public func mapDMA(_ arena: DMAArena) throws(PCIError) { try memory?.map(arena) }

    /// Takes an arena away.
    public func unmapDMA(_ arena: DMAArena) throws(PCIError) { try memory?.unmap(arena) }

    /// Resets the function and keeps interrupts and mappings as they are; `notSupported` for a
    /// function that the kernel cannot reset by itself, with those whom a bus reset would hit too.
    public func reset() throws(PCIError) {
        guard canReset else { throw hasNoReset }
        do throws(SystemError) {
            try kernel.reset(try opened())
        } catch {
            throw error.errno == .invalidArgument ? hasNoReset : .system(error)
        }
    }

    private var hasNoReset: PCIError {
        let others = ((try? hotResetMembers()) ?? []).map(\.address).filter { $0 != address }
        let list = others.map { "\($0)" }.joined(separator: ", ")
        return .notSupported(
            "a reset of \(address) alone: the function has none (see reset_method in sysfs)"
                + (others.isEmpty ? "" : ", and a reset of its bus would hit \(list) too")
        )
    }

    /// Whom a reset of the whole bus or slot would hit: this function and others, as the kernel says.
    public func hotResetMembers() throws(PCIError) -> [HotResetMember] {
        let bytes = try presenting { () throws(SystemError) in
            try kernel.hotResetAnswer(try opened(), capacity: 4096)
        }
        return try HotResetMember.list(AnswerBytes(bytes: bytes))
    }
}
