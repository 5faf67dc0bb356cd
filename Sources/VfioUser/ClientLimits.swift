/// How long a client waits for its server, and how much it takes.
public struct ClientLimits: Sendable {
    /// Milliseconds that the server has for each reply; then the device counts as broken (VFU-C-07).
    public var reply: UInt64 = 5000
    /// Largest count of a DMA access by message that is answered, in bytes.
    public var transferSize = Capabilities.defaultTransferSize

    /// Arenas are handed over as files; without, the server reaches them by messages only, each of
    /// which we see.
    public var sharesMemory = true

    /// The limits that QEMU has, too.
    public init() {}
}

/// What a client has counted.
public struct ClientCounters: Sendable, Equatable {
    /// Commands sent.
    public var commands: UInt64 = 0
    /// DMA accesses by message that were answered with bytes or taken.
    public var servedAccesses: UInt64 = 0
    /// Commands of the server that were answered with an error (HI-E43).
    public var refusedCommands: UInt64 = 0

    /// Nothing yet.
    public init() {}
}
