/// Where the peer's memory appears (class 1, PEER_MEM_INFO): the window, and each region's place in it.
///
/// The vhost-pci-net RFC names the first field and leaves the rest to the implementation; the
/// remaining layout is ours, versioned, with entries that may grow (VPN-M-14).
public struct PeerMemoryInformation: Equatable, Sendable {
    /// How the window is named.
    public enum Location: Equatable, Sendable {
        /// Command 0: a BAR of the function, by number.
        case bar(UInt64)
        /// Command 1: an address that device and driver share.
        case address(UInt64)
    }

    /// One run of peer memory: 40 bytes.
    public struct Region: Equatable, Sendable {
        /// Peer address (GPA) of the first byte.
        public var guestAddress: UInt64
        /// Length in bytes, a multiple of 4096.
        public var size: UInt64
        /// The front-end's own address of the first byte, 0 when it is not known.
        public var userAddress: UInt64
        /// Offset in the BAR (or from the shared address) of the first byte.
        public var barOffset: UInt64
        /// What may be done with the bytes.
        public var flags: RegionFlags
        /// BAR number, where the header says that the window is split.
        public var bar: UInt32

        /// Describes a region.
        public init(
            guestAddress: UInt64,
            size: UInt64,
            userAddress: UInt64,
            barOffset: UInt64,
            flags: RegionFlags = [.readable, .writable],
            bar: UInt32 = 0
        ) {
            self.guestAddress = guestAddress
            self.size = size
            self.userAddress = userAddress
            self.barOffset = barOffset
            self.flags = flags
            self.bar = bar
        }
    }

    /// Flags of one region.
    public struct RegionFlags: OptionSet, Sendable {
        /// The wire's bits; unknown ones are carried and ignored.
        public let rawValue: UInt32

        /// Takes the bits as they are.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// The bytes may be read.
        public static let readable = RegionFlags(rawValue: 1)
        /// The bytes may be written.
        public static let writable = RegionFlags(rawValue: 2)
        /// The region is the dirty log.
        public static let dirtyLog = RegionFlags(rawValue: 4)
    }

    /// Flags of the whole message.
    public struct Flags: OptionSet, Sendable {
        /// The wire's bits; unknown ones are carried and ignored.
        public let rawValue: UInt32

        /// Takes the bits as they are.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// Peer addresses are IOVAs, not guest physical addresses.
        public static let translatedAddresses = Flags(rawValue: 1)
        /// The window lies in several BARs; each region names its own.
        public static let splitWindow = Flags(rawValue: 2)
    }

    /// Which BAR, or which address.
    public var location: Location
    /// Start of the window in the BAR.
    public var windowOffset: UInt64
    /// Bytes usable from there.
    public var windowSize: UInt64
    /// Flags of the whole message.
    public var flags: Flags
    /// Number of this version of the table (VPN-D-18).
    public var generation: UInt32
    /// The regions, in the order of the message.
    public var regions: [Region]

    /// The layout's version.
    public static let version: UInt16 = 1
    /// Bytes of one region entry as this version writes it.
    public static let entrySize = 40
    /// Bytes in front of the first entry.
    public static let headerSize = 40
    /// Most regions in a table.
    public static let maximumRegions = 32

    /// Describes a window.
    public init(
        location: Location,
        windowOffset: UInt64,
        windowSize: UInt64,
        flags: Flags = [],
        generation: UInt32,
        regions: [Region]
    ) {
        self.location = location
        self.windowOffset = windowOffset
        self.windowSize = windowSize
        self.flags = flags
        self.generation = generation
        self.regions = regions
    }
}

extension PeerMemoryInformation {
    func encode(into writer: inout WireWriter) {
        switch location {
        case .bar(let number): writer.integer(number)
        case .address(let address): writer.integer(address)
        }
        writer.integer(Self.version)
        writer.integer(UInt16(Self.entrySize))
        writer.integer(UInt32(clamping: regions.count))
        writer.integer(windowOffset)
        writer.integer(windowSize)
        writer.integer(flags.rawValue)
        writer.integer(generation)
        for region in regions {
            writer.integer(region.guestAddress)
            writer.integer(region.size)
            writer.integer(region.userAddress)
            writer.integer(region.barOffset)
            writer.integer(region.flags.rawValue)
            writer.integer(region.bar)
        }
    }

    /// Reads what follows class and command. Only the shape is checked here; whether the regions
    /// make a usable table is `checkedTable`'s business.
    init(decoding data: [UInt8], isAddress: Bool) throws(ControlFrameError) {
        let short = ControlFrameError.cut(expected: Self.headerSize, actual: data.count)
        var reader = WireReader(data)
        guard let memory = reader.integer(UInt64.self),
            let version = reader.integer(UInt16.self),
            let entrySize = reader.integer(UInt16.self),
            let count = reader.integer(UInt32.self),
            let windowOffset = reader.integer(UInt64.self),
            let windowSize = reader.integer(UInt64.self),
            let flags = reader.integer(UInt32.self),
            let generation = reader.integer(UInt32.self)
        else { throw short }
        guard version >= 1, Int(entrySize) >= Self.entrySize else {
            throw .layout(version: version, entrySize: entrySize)
        }
        guard count >= 1, count <= UInt32(Self.maximumRegions) else { throw .regionCount(count) }
        let expected = Self.headerSize + Int(count) * Int(entrySize)
        var regions: [Region] = []
        for _ in 0..<count {
            guard let entry = reader.bytes(Int(entrySize)), let region = Region(decoding: entry)
            else { throw .cut(expected: expected, actual: data.count) }
            regions.append(region)
        }
        self.init(
            location: isAddress ? .address(memory) : .bar(memory),
            windowOffset: windowOffset,
            windowSize: windowSize,
            flags: Flags(rawValue: flags),
            generation: generation,
            regions: regions
        )
    }
}

extension PeerMemoryInformation.Region {
    fileprivate init?(decoding entry: [UInt8]) {
        var reader = WireReader(entry)
        guard let guestAddress = reader.integer(UInt64.self),
            let size = reader.integer(UInt64.self),
            let userAddress = reader.integer(UInt64.self),
            let barOffset = reader.integer(UInt64.self),
            let flags = reader.integer(UInt32.self),
            let bar = reader.integer(UInt32.self)
        else { return nil }
        self.init(
            guestAddress: guestAddress,
            size: size,
            userAddress: userAddress,
            barOffset: barOffset,
            flags: PeerMemoryInformation.RegionFlags(rawValue: flags),
            bar: bar
        )
    }
}
