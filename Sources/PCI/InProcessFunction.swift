public import GuestMemory
public import HostSystem
public import Virtqueue

/// Joins an emulated function and its driver in one process: what a bus, an IOMMU and a kernel do
/// for hardware is done here by calls.
///
/// Arenas become the memory that the function can reach, at their device addresses. MSI-X vectors
/// become eventfds. The kernel's part of MSI-X is played here too: connecting a vector enables MSI-X
/// and unmasks the vector, so drivers never touch the table.
public final class InProcessFunction: PCIFunction, PCIHost {
    private let endpoint: any PCIEndpoint
    private var arenas: [DMAArena] = []
    private var events: [Int: EventFD] = [:]
    private var addresses = DeviceAddressSpace()

    /// What the function can reach by DMA, at IOVAs.
    public private(set) var memory: MemoryTable = .empty

    /// Messages of vectors that are connected to nobody.
    public private(set) var strayInterrupts: UInt64 = 0

    /// Serves `endpoint` to the driver that holds this object.
    public init(endpoint: any PCIEndpoint) {
        self.endpoint = endpoint
        endpoint.attach(self)
    }

    /// Reads configuration space.
    public func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        endpoint.readConfiguration(offset, width)
    }

    /// Writes configuration space.
    public func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        endpoint.writeConfiguration(offset, width, value)
    }

    /// Length of a BAR in bytes.
    public func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        (0..<ConfigurationHeader.baseAddressCount).contains(bar) ? endpoint.barSize(bar) : 0
    }

    /// Reads a register.
    public func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        try check(bar, offset, UInt64(width.rawValue))
        return endpoint.readRegister(bar, offset, width)
    }

    /// Writes a register.
    public func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        try check(bar, offset, UInt64(width.rawValue))
        endpoint.writeRegister(bar, offset, width, value)
    }

    /// The window's own address: nothing is mapped a second time.
    public func mapWindow(
        _ bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(PCIError) -> BARWindow {
        try check(bar, offset, size)
        guard let mapping = endpoint.window(bar) else {
            throw .notSupported("mapping BAR \(bar), which holds registers")
        }
        guard command.contains(.memorySpace) else {
            throw .notSupported("mapping a BAR while memory decoding is off")
        }
        guard size > 0, UInt64(mapping.length) >= offset + size else {
            throw .range(bar: bar, offset: offset, size: size)
        }
        return unsafe BARWindow(
            address: mapping.address + Int(offset),
            size: size,
            owner: mapping
        )
    }

    /// The doorbell of a register that an eventfd stands for.
    public func doorbell(
        _ bar: Int,
        _ offset: UInt64,
        value: UInt16
    ) throws(PCIError) -> Doorbell {
        try check(bar, offset, 2)
        guard let descriptor = endpoint.doorbellDescriptor(bar, offset) else {
            throw .notSupported("a doorbell at \(offset) of BAR \(bar)")
        }
        return Doorbell(eventDescriptor: descriptor)
    }

    /// Connects and unmasks a vector, or masks it.
    public func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        let vectors = try MessageVectors(endpoint)
        guard vector >= 0, vector < vectors.count else { throw .vector(vector) }
        events[vector] = event
        if event == nil {
            vectors.mask(vector)
        } else {
            vectors.unmask(vector)
        }
        vectors.enable()
    }

    /// Number of MSI-X vectors, 0 without the capability.
    public var interruptVectorCount: Int {
        get throws(PCIError) { try MessageVectors(endpoint).count }
    }

    /// Lets the function reach an arena.
    public func mapDMA(_ arena: DMAArena) throws(PCIError) {
        try replaceMemory(arenas + [arena])
    }

    /// Takes an arena away.
    public func unmapDMA(_ arena: DMAArena) throws(PCIError) {
        try replaceMemory(arenas.filter { $0 !== arena })
    }

    /// Makes an arena in memory of this process, at a free device address.
    public func makeArena(size: Int) throws(PCIError) -> DMAArena {
        guard let address = addresses.take(UInt64(clamping: size)) else {
            throw .noRoom("an arena of \(size) bytes")
        }
        do {
            let arena = try DMAArena(size: size, deviceAddress: address)
            try mapDMA(arena)
            return arena
        } catch {
            addresses.release(address)
            switch error {
            case let error as SystemError: throw .system(error)
            case let error as PCIError: throw error
            default: throw .noRoom("an arena of \(size) bytes")
            }
        }
    }

    /// Takes an arena back.
    public func releaseArena(_ arena: DMAArena) throws(PCIError) {
        try unmapDMA(arena)
        addresses.release(arena.deviceAddress)
    }

    /// Resets the function. Connected vectors stay connected, as a kernel keeps them.
    public func reset() throws(PCIError) {
        endpoint.reset()
        let vectors = try MessageVectors(endpoint)
        for vector in events.keys.sorted() where vector < vectors.count {
            vectors.unmask(vector)
            vectors.enable()
        }
    }

    /// Delivers a vector.
    public func raise(_ vector: Int) {
        guard let event = events[vector] else {
            strayInterrupts &+= 1
            return
        }
        event.signal()
    }

    private var command: CommandRegister {
        CommandRegister(
            rawValue: UInt16(
                truncatingIfNeeded: endpoint.readConfiguration(ConfigurationHeader.command, .word)
            )
        )
    }

    private func check(_ bar: Int, _ offset: UInt64, _ size: UInt64) throws(PCIError) {
        let length = try barSize(bar)
        guard offset <= length, size <= length - offset else {
            throw .range(bar: bar, offset: offset, size: size)
        }
    }

    private func replaceMemory(_ wanted: [DMAArena]) throws(PCIError) {
        var regions: [MemoryRegion] = []
        for arena in wanted {
            let region = unsafe MemoryRegion(
                start: arena.deviceAddress,
                size: UInt64(arena.mapping.length),
                host: arena.mapping.address
            )
            guard let region else {
                throw .system(SystemError("map an arena for the device", .invalidArgument))
            }
            regions.append(region)
        }
        do {
            memory = try MemoryTable(regions, owners: wanted.map(\.mapping))
        } catch {
            throw .system(SystemError("map an arena over another", .exists))
        }
        arenas = wanted
        endpoint.memoryChanged()
    }
}
