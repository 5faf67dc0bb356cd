public import GuestMemory
public import HostSystem
public import PCI
public import Virtqueue

// Mapped parts of BARs and doorbells.
extension Client {
    /// Maps what the server lets be mapped of a part of a BAR. What lies between reads as zeros, and
    /// stores there lead nowhere. `notSupported` where nothing can be mapped.
    public func mapWindow(
        _ bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(PCIError) -> BARWindow {
        let region = try region(bar, offset, size)
        let window = try presenting { () throws(SystemError) in
            try ClientWindow(region, offset: offset, size: size)
        }
        guard let window else {
            throw .notSupported("mapping \(size) bytes at \(offset) of BAR \(bar)")
        }
        return unsafe BARWindow(address: window.address, size: size, owner: window)
    }

    /// The doorbell of a 16-bit register: the server's own eventfd, or the register itself where it
    /// can be mapped, or an eventfd for which a thread of ours writes the register by messages.
    public func doorbell(
        _ bar: Int,
        _ offset: UInt64,
        value: UInt16
    ) throws(PCIError) -> Doorbell {
        let region = try region(bar, offset, 2)
        guard offset % 2 == 0 else { throw .range(bar: bar, offset: offset, size: 2) }
        if regionEvents[bar] == nil {
            regionEvents[bar] = try RegionEvents(bar, size: region.size, of: channel)
        }
        if let descriptor = regionEvents[bar]?.descriptor(at: offset, value: value) {
            return Doorbell(eventDescriptor: descriptor.rawValue)
        }
        return try presenting { () throws(SystemError) in
            if region.area(holding: offset, 2) != nil,
                let window = try ClientWindow(region, offset: offset, size: 2)
            {
                windows.append(window)
                return unsafe Doorbell(register: window.address, value: value)
            }
            let bell = try attended().bell(region: bar, offset: offset, value: value)
            bells.append(bell)
            return Doorbell(eventDescriptor: bell.descriptor.rawValue)
        }
    }

    /// The thread that looks after the connection, from the first use on.
    private func attended() throws(SystemError) -> ClientAttendant {
        if let attendant { return attendant }
        let new = try ClientAttendant(channel)
        attendant = new
        return new
    }
}

// Interrupts and reset.
extension Client {
    /// Delivers an MSI-X vector to an eventfd; `nil` takes it away.
    public func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        guard interrupts != nil else { throw .vector(vector) }
        try interrupts?.connect(vector, to: event, channel)
        try enableMessages()
    }

    /// Number of MSI-X vectors, 0 for a function without.
    public var interruptVectorCount: Int {
        get throws(PCIError) { interrupts?.count ?? 0 }
    }

    /// Resets the function. Connected vectors, arenas and windows stay as they are; `notSupported`
    /// when the server says that it cannot.
    public func reset() throws(PCIError) {
        guard canReset else { throw .notSupported("a reset of the device at \(name)") }
        try Client.reset(channel)
        if interrupts?.isEnabled == true { try enableMessages() }
    }

    /// A kernel sets the enable bit when it connects a vector; nobody else does it here.
    private func enableMessages() throws(PCIError) {
        guard let entry = try CapabilityList(self).first(MSIXTable.identifier) else { return }
        let control = entry.offset + MSIXTable.controlOffset
        let value = try readConfiguration(control, .word)
        let wanted = value | UInt32(MSIXTable.enableBit)
        if wanted != value { try writeConfiguration(control, .word, wanted) }
    }
}

// Memory.
extension Client {
    /// Lets the server reach an arena: its file is handed over.
    public func mapDMA(_ arena: DMAArena) throws(PCIError) {
        _ = try presenting { () throws(SystemError) in try attended() }
        try memory.map(arena, channel)
    }

    /// Takes an arena away; the server has let go of it when this returns.
    public func unmapDMA(_ arena: DMAArena) throws(PCIError) { try memory.unmap(arena, channel) }

    /// Makes an arena at an address of our choice and hands it over.
    public func makeArena(size: Int) throws(PCIError) -> DMAArena {
        _ = try presenting { () throws(SystemError) in try attended() }
        return try memory.make(size, channel)
    }

    /// Takes an arena and its address back.
    public func releaseArena(_ arena: DMAArena) throws(PCIError) {
        try memory.release(arena, channel)
    }
}

// The server's end.
extension Client {
    /// Calls `tell` once on the loop's thread when the device is lost, and answers what the server asks
    /// while the loop runs, until `stopWatching` or the end of this object (HI-E44).
    public func watch(
        on loop: EventLoop,
        _ tell: @escaping (HostRefusal) -> Void
    ) throws(PCIError) {
        stopWatching()
        let channel = channel
        let serve = { [weak self] in
            guard channel.serve() == .over, let fault = channel.fault else { return }
            self?.stopWatching()
            tell(fault)
        }
        watch = try presenting { () throws(SystemError) in
            let socket = try loop.watch(channel.descriptor, serve)
            do throws(SystemError) {
                return (loop, [socket, try loop.watch(channel.ended.descriptor, serve)])
            } catch {
                loop.remove(socket)
                throw error
            }
        }
    }

    /// Tells nothing any more.
    public func stopWatching() {
        for source in watch?.sources ?? [] { watch?.loop.remove(source) }
        watch = nil
    }
}
