/// The requests that a front-end may send (vhost-user: Front-end message types), known to us by
/// name whether or not we serve them.
public enum Request: UInt32, Sendable, CaseIterable {
    /// Which features does the back-end have?
    case getFeatures = 1
    /// These features are acknowledged.
    case setFeatures = 2
    /// The sender is in charge from now on.
    case setOwner = 3
    /// Deprecated; changes nothing here.
    case resetOwner = 4
    /// All memory, replacing what was known.
    case setMemoryTable = 5
    /// Where writes are logged.
    case setLogBase = 6
    /// Who is told of logged writes.
    case setLogDescriptor = 7
    /// Number of descriptors of a ring.
    case setVringSize = 8
    /// Addresses of a ring.
    case setVringAddress = 9
    /// Next available index of a ring.
    case setVringBase = 10
    /// Stop a ring and say where it stands.
    case getVringBase = 11
    /// Start a ring; how it is kicked.
    case setVringKick = 12
    /// How the driver of a ring is interrupted.
    case setVringCall = 13
    /// How a broken ring is reported.
    case setVringError = 14
    /// Which protocol features does the back-end have?
    case getProtocolFeatures = 15
    /// These protocol features are acknowledged.
    case setProtocolFeatures = 16
    /// How many queues (for a network device: pairs)?
    case getQueueCount = 17
    /// Let a ring work, or not.
    case setVringEnable = 18
    /// Announce an address after migration.
    case sendRARP = 19
    /// The largest frame.
    case setMTU = 20
    /// Socket for requests of the back-end.
    case setBackendChannel = 21
    /// Address translation entry.
    case iotlb = 22
    /// Byte order of a ring.
    case setVringEndian = 23
    /// Read configuration space.
    case getConfiguration = 24
    /// Write configuration space.
    case setConfiguration = 25
    /// Open a crypto session.
    case createCryptoSession = 26
    /// Close a crypto session.
    case closeCryptoSession = 27
    /// Post-copy migration will come.
    case postcopyAdvise = 28
    /// Post-copy migration begins.
    case postcopyListen = 29
    /// Post-copy migration is over.
    case postcopyEnd = 30
    /// Give memory for buffers in flight.
    case getInflight = 31
    /// Take memory for buffers in flight.
    case setInflight = 32
    /// Socket of a display.
    case setGPUSocket = 33
    /// Reset the device.
    case resetDevice = 34
    /// A kick as a message.
    case vringKick = 35
    /// How many memory regions may there be?
    case getMemorySlots = 36
    /// One more memory region.
    case addRegion = 37
    /// One memory region less.
    case removeRegion = 38
    /// The device status.
    case setStatus = 39
    /// What is the device status?
    case getStatus = 40
    /// A shared object by its name.
    case getSharedObject = 41
    /// Where device state is transferred.
    case setDeviceState = 42
    /// Was device state transferred well?
    case checkDeviceState = 43
    /// Which shared memory regions are there?
    case getSharedMemory = 44
}
