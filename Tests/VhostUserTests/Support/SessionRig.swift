import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// Plays a front-end against a `BackendSession`: builds requests, answers quiesce requests at once,
/// keeps what came back.
struct SessionRig {
    var session: BackendSession
    /// Positions the device is said to have reached, by ring.
    var positions: [Int: UInt16] = [:]
    /// How often the device was asked to stop.
    private(set) var quiesceCount = 0
    /// What the last message led to.
    private(set) var last = BackendSession.Step()

    static let features: FeatureBits = [
        .version1, .netMergeableBuffers, .indirectDescriptors, .eventIndex, .netMAC,
    ]

    init(offer: BackendOffer = BackendOffer(features: SessionRig.features)) {
        session = BackendSession(offer: offer)
    }

    /// Sends a request as it is.
    @discardableResult
    mutating func send(_ message: Message) -> BackendSession.Step {
        var step = session.accept(message)
        if step.needsQuiesce {
            quiesceCount += 1
            let positions = positions
            step = session.resume { positions[$0] }
        }
        last = step
        return step
    }

    @discardableResult
    mutating func send(
        _ request: Request,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = [],
        needsReply: Bool = false
    ) -> BackendSession.Step {
        send(
            Message(request, needsReply: needsReply, payload: payload, descriptors: descriptors)
        )
    }

    @discardableResult
    mutating func number(
        _ request: Request,
        _ value: UInt64,
        needsReply: Bool = false
    ) -> BackendSession.Step {
        send(request, NumberPayload.encode(value), needsReply: needsReply)
    }

    @discardableResult
    mutating func state(
        _ request: Request,
        _ ring: UInt32,
        _ value: UInt32 = 0,
        needsReply: Bool = false
    ) -> BackendSession.Step {
        send(request, VringState(index: ring, number: value).encoded, needsReply: needsReply)
    }

    @discardableResult
    mutating func notifier(
        _ request: Request,
        _ ring: UInt64,
        _ descriptor: FileDescriptor?,
        needsReply: Bool = false
    ) -> BackendSession.Step {
        let payload = VringDescriptor(index: ring, hasDescriptor: descriptor != nil)
        return send(
            request,
            payload.encoded,
            descriptor.map { [$0] } ?? [],
            needsReply: needsReply
        )
    }

    /// Features and protocol features, as QEMU asks for them.
    mutating func negotiate(
        _ features: FeatureBits = SessionRig.features,
        protocolFeatures: ProtocolFeatures = .served
    ) {
        send(.getFeatures)
        send(.getProtocolFeatures)
        number(.setProtocolFeatures, protocolFeatures.rawValue)
        send(.setOwner)
        number(.setFeatures, features.union(.vhostUserProtocol).rawValue)
    }

    /// One ring of 256 entries in `memory`, which starts and is enabled.
    mutating func start(_ ring: UInt32, in memory: TestMemory, size: UInt32 = 256) throws {
        state(.setVringSize, ring, size)
        state(.setVringBase, ring, 0)
        send(.setVringAddress, memory.ring(ring).encoded)
        notifier(.setVringCall, UInt64(ring), try EventFD().descriptor)
        notifier(.setVringKick, UInt64(ring), try EventFD().descriptor)
        state(.setVringEnable, ring, 1)
    }

    /// A session with one region and both rings working and told to the device.
    static func working() throws -> (SessionRig, TestMemory) {
        var rig = SessionRig()
        let memory = try TestMemory()
        rig.negotiate()
        rig.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        try rig.start(0, in: memory)
        try rig.start(1, in: memory)
        _ = rig.session.publish()
        return (rig, memory)
    }
}

/// A memory file and a region of it as a front-end describes it.
struct TestMemory {
    let file: MemoryFile
    let region: MemoryRegionPayload

    static let size = 1 << 20

    init(
        guestAddress: UInt64 = 0,
        userAddress: UInt64 = 0x7f00_0000_0000,
        size: Int = TestMemory.size
    ) throws {
        file = try MemoryFile(name: "peer", size: size)
        region = MemoryRegionPayload(
            guestAddress: guestAddress,
            length: UInt64(size),
            userAddress: userAddress,
            fileOffset: 0
        )
    }

    var table: MemoryTablePayload { MemoryTablePayload([region]) }

    /// Addresses of a ring: 0x10000 bytes for each.
    func ring(_ index: UInt32) -> VringAddress {
        let start = region.userAddress + UInt64(index) * 0x10000
        return VringAddress(
            index: index,
            descriptorArea: start,
            driverArea: start + 0x4000,
            deviceArea: start + 0x8000
        )
    }
}

extension BackendSession.Step {
    /// The 64-bit number in the reply.
    var number: UInt64? {
        guard let reply, reply.count == 20 else { return nil }
        return NumberPayload.decode(Array(reply.dropFirst(12)))
    }

    /// The request was carried out and the connection goes on.
    var isGood: Bool { refused == nil && close == nil && !needsQuiesce }
}
