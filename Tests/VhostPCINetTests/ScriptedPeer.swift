import GuestMemory
import HostSystem
import Testing
import VirtioSpec

/// A vhost-user front-end played message by message over a real socket, with a real memory file and
/// split rings that a test fills by hand.
final class ScriptedPeer {
    /// Ids of vhost-user requests (vhost-user: Front-end message types).
    enum Request: UInt32 {
        case getFeatures = 1
        case setFeatures = 2
        case setOwner = 3
        case setMemoryTable = 5
        case setRingSize = 8
        case setRingAddress = 9
        case setRingBase = 10
        case getRingBase = 11
        case setKick = 12
        case setCall = 13
        case setError = 14
        case getProtocolFeatures = 15
        case setProtocolFeatures = 16
        case enableRing = 18
        case addRegion = 37
    }

    struct Region {
        let guestAddress: UInt64
        let file: FileDescriptor
        let size: Int
        var fileOffset = 0

        var userAddress: UInt64 { 0x7000_0000_0000 + guestAddress }
    }

    static let guestBase: UInt64 = 0x10_0000
    static let memorySize = 1 << 18
    static let ringSize: UInt16 = 16
    /// MQ and REPLY_ACK.
    static let protocolFeatures: UInt64 = 1 << 0 | 1 << 3
    static let allFeatures: FeatureBits = [
        .version1, .netMergeableBuffers, .indirectDescriptors, .eventIndex, .inOrder,
    ]

    let socket: UnixSocket
    let file: FileDescriptor
    let memory: Mapping
    var regions: [Region]
    var kicks: [EventFD] = []
    var calls: [EventFD] = []
    private(set) var offered: FeatureBits = []
    private let loop: EventLoop
    private var isAcknowledging = false
    private var isPipelining = false
    private var received: [UInt8] = []
    private(set) var isClosed = false

    /// `isSealed` decides whether the memory file can be truncated later; `file` is one of an
    /// earlier peer, as a machine with its memory in a file system has it.
    init(
        path: String,
        loop: EventLoop,
        rings: Int = 2,
        isSealed: Bool = true,
        file earlier: FileDescriptor? = nil
    ) throws {
        self.loop = loop
        socket = try UnixSocket.connect(to: path)
        let fresh =
            isSealed
            ? try MemoryFile(name: "peer", size: Self.memorySize).descriptor
            : try PeerMemory.unsealed(size: UInt64(Self.memorySize))
        file = earlier ?? fresh
        memory = try Mapping.file(file, offset: 0, length: Self.memorySize)
        regions = [Region(guestAddress: Self.guestBase, file: file, size: Self.memorySize)]
        for _ in 0..<rings {
            kicks.append(try EventFD())
            calls.append(try EventFD())
        }
    }

    // MARK: sessions

    /// Everything from the first message to enabled rings.
    func connect(features: FeatureBits? = nil) throws {
        try negotiate(features: features)
        try setMemory()
        try startAll()
    }

    /// Starts every ring in one go: however slow this machine is, the back-end sees them together.
    func startAll() throws {
        isPipelining = true
        for ring in kicks.indices { try start(ring) }
        isPipelining = false
        try enable(kicks.count - 1, true)
    }

    func negotiate(features wanted: FeatureBits? = nil) throws {
        offered = FeatureBits(rawValue: try number(request(.getFeatures, reply: true)))
        let features = (wanted ?? Self.allFeatures).intersection(offered)
        let protocols = try number(request(.getProtocolFeatures, reply: true))
        try request(.setProtocolFeatures, littleEndian(protocols & Self.protocolFeatures))
        isAcknowledging = true
        try request(.setOwner)
        try request(.setFeatures, littleEndian(features.union(.vhostUserProtocol).rawValue))
    }

    func setMemory() throws {
        var payload = WireWriter()
        payload.integer(UInt32(regions.count))
        payload.zeros(4)
        for region in regions { write(region, to: &payload) }
        try request(.setMemoryTable, payload.bytes, regions.map(\.file))
    }

    func addRegion(_ region: Region) throws {
        var payload = WireWriter()
        payload.zeros(8)
        write(region, to: &payload)
        try request(.addRegion, payload.bytes, [region.file])
        regions.append(region)
    }

    func start(_ ring: Int, base: UInt16 = 0, enabled: Bool = true) throws {
        try request(.setRingSize, pair(ring, UInt32(Self.ringSize)))
        try request(.setRingBase, pair(ring, UInt32(base)))
        var address = WireWriter()
        address.integer(UInt32(ring))
        address.integer(UInt32(0))
        let user = regions[0].userAddress + UInt64(ringOffset(ring))
        for area in [user, user + 0x2000, user + 0x1000, 0] { address.integer(area) }
        try request(.setRingAddress, address.bytes)
        try request(.setCall, littleEndian(UInt64(ring)), [calls[ring].descriptor])
        try request(.setKick, littleEndian(UInt64(ring)), [kicks[ring].descriptor])
        try request(.enableRing, pair(ring, enabled ? 1 : 0))
    }

    func enable(_ ring: Int, _ isEnabled: Bool) throws {
        try request(.enableRing, pair(ring, isEnabled ? 1 : 0))
    }

    /// GET_VRING_BASE: the next available index.
    func stop(_ ring: Int) throws -> UInt16 {
        let reply = try request(.getRingBase, pair(ring, 0), reply: true)
        return UInt16(reply[4]) | UInt16(reply[5]) << 8
    }

    func replaceCall(_ ring: Int) throws {
        calls[ring] = try EventFD()
        try request(.setCall, littleEndian(UInt64(ring)), [calls[ring].descriptor])
    }

    // MARK: memory and rings

    func ringOffset(_ ring: Int) -> Int { ring * 0x3000 }

    func guestAddress(_ offset: Int) -> UInt64 { Self.guestBase + UInt64(offset) }

    subscript(offset: Int) -> UInt8 {
        get { unsafe memory.address.load(fromByteOffset: offset, as: UInt8.self) }
        set { unsafe memory.address.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self) }
    }

    func word(_ offset: Int) -> UInt16 { UInt16(self[offset]) | UInt16(self[offset + 1]) << 8 }

    func usedIndex(_ ring: Int) -> UInt16 { word(ringOffset(ring) + 0x2002) }

    /// Makes one buffer available: one descriptor at the ring's next place.
    func post(_ ring: Int, bytes: [UInt8], isWritable: Bool = false) {
        let base = ringOffset(ring)
        let index = word(base + 0x1002)
        let slot = Int(index % Self.ringSize)
        let buffer = 0x20000 + ring * 0x8000 + slot * 0x800
        for (position, byte) in bytes.enumerated() { self[buffer + position] = byte }
        var descriptor = WireWriter()
        descriptor.integer(guestAddress(buffer))
        descriptor.integer(UInt32(bytes.count))
        descriptor.integer(UInt16(isWritable ? 2 : 0))
        descriptor.integer(UInt16(0))
        for (position, byte) in descriptor.bytes.enumerated() {
            self[base + slot * 16 + position] = byte
        }
        set(base + 0x1004 + slot * 2, UInt16(slot))
        set(base + 0x1002, index &+ 1)
    }

    func set(_ offset: Int, _ value: UInt16) {
        self[offset] = UInt8(truncatingIfNeeded: value)
        self[offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
    }

    // MARK: messages

    /// Sends a request and waits, serving the loop, for what answers it.
    @discardableResult
    func request(
        _ request: Request,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = [],
        reply: Bool = false
    ) throws -> [UInt8] {
        let wantsAcknowledgement = isAcknowledging && !reply && !isPipelining
        try send(request, payload, descriptors, needsReply: wantsAcknowledgement)
        guard reply || wantsAcknowledgement else { return [] }
        let answer = try awaitReply(request)
        if wantsAcknowledgement, try number(answer) != 0 { throw Failure.refused(request) }
        return answer
    }

    func send(
        _ request: Request,
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor] = [],
        needsReply: Bool = false
    ) throws {
        var message = WireWriter()
        message.integer(request.rawValue)
        message.integer(UInt32(needsReply ? 9 : 1))
        message.integer(UInt32(payload.count))
        message.append(payload)
        _ = try socket.send(message.bytes[...], descriptors: descriptors)
    }

    func awaitReply(_ request: Request) throws -> [UInt8] {
        let deadline = Deadline(milliseconds: 5000)
        while !deadline.hasPassed {
            if let answer = try takeReply(request) { return answer }
            if isClosed { throw Failure.closed(request) }
            try loop.turn(limitMilliseconds: 10)
        }
        throw Failure.silence(request)
    }

    /// True once the back-end has closed the connection.
    func sawClose() throws -> Bool {
        if !isClosed { try read() }
        return isClosed
    }

    enum Failure: Error {
        case refused(Request)
        case closed(Request)
        case silence(Request)
        case wrongReply(Request)
    }

    private func takeReply(_ request: Request) throws -> [UInt8]? {
        try read()
        var reader = WireReader(received)
        guard let id = reader.integer(UInt32.self), let flags = reader.integer(UInt32.self),
            let size = reader.integer(UInt32.self), let payload = reader.bytes(Int(size))
        else { return nil }
        guard id == request.rawValue, flags == 5 else { throw Failure.wrongReply(request) }
        received.removeFirst(12 + payload.count)
        return payload
    }

    private func read() throws {
        do {
            guard let more = try socket.receive(limit: 4096) else { return }
            if more.bytes.isEmpty { isClosed = true }
            received += more.bytes
        } catch {
            isClosed = true
        }
    }

    private func write(_ region: Region, to payload: inout WireWriter) {
        payload.integer(region.guestAddress)
        payload.integer(UInt64(region.size))
        payload.integer(region.userAddress)
        payload.integer(UInt64(region.fileOffset))
    }

    private func pair(_ ring: Int, _ value: UInt32) -> [UInt8] {
        littleEndian(UInt32(ring)) + littleEndian(value)
    }

    private func number(_ bytes: [UInt8]) throws -> UInt64 {
        var reader = WireReader(bytes)
        let value = reader.integer(UInt64.self)
        return try #require(value)
    }
}

func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    var writer = WireWriter()
    writer.integer(value)
    return writer.bytes
}
