import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// What QEMU and DPDK were seen to send, request by request: nothing of it may be refused.
@Suite struct SessionTraceTests {
    /// Sends requests as one front-end does and fails on the first that is refused.
    private struct Player {
        var rig: SessionRig
        let memory: TestMemory
        /// Requests that carry the wish for an acknowledgement.
        let acknowledged: Set<Request>

        init(_ acknowledged: Set<Request>, pairs: Int = 1) throws {
            let features = SessionRig.features.union([.netMultiqueue, .netStatus])
            rig = SessionRig(offer: BackendOffer(features: features, queuePairs: pairs))
            memory = try TestMemory()
            self.acknowledged = acknowledged
        }

        mutating func send(
            _ request: Request,
            _ payload: [UInt8] = [],
            _ descriptors: [FileDescriptor] = []
        ) {
            let wish = acknowledged.contains(request)
            let step = rig.send(request, payload, descriptors, needsReply: wish)
            #expect(step.isGood, "\(request): \(String(describing: step.refused))")
            if wish { #expect(step.number == 0, "\(request)") }
        }

        mutating func number(_ request: Request, _ value: UInt64) {
            send(request, NumberPayload.encode(value))
        }

        mutating func state(_ request: Request, _ ring: UInt32, _ value: UInt32) {
            send(request, VringState(index: ring, number: value).encoded)
        }

        mutating func notifier(_ request: Request, _ ring: UInt32) throws {
            let payload = VringDescriptor(index: UInt64(ring), hasDescriptor: true).encoded
            send(request, payload, [try EventFD().descriptor])
        }

        mutating func enable(_ rings: Range<UInt32>, _ value: UInt32 = 1) {
            for ring in rings { state(.setVringEnable, ring, value) }
        }

        /// Number, base, address, kick and, with QEMU, call.
        mutating func start(_ ring: UInt32, base: UInt32 = 0, call: Bool = true) throws {
            state(.setVringSize, ring, 256)
            state(.setVringBase, ring, base)
            send(.setVringAddress, memory.ring(ring).encoded)
            try notifier(.setVringKick, ring)
            if call { try notifier(.setVringCall, ring) }
        }

        mutating func table() throws {
            let copy = try memory.file.descriptor.duplicate()
            send(.setMemoryTable, memory.table.encoded, [copy])
        }

        mutating func region() throws {
            let copy = try memory.file.descriptor.duplicate()
            send(.addRegion, SingleRegionPayload(memory.region).encoded, [copy])
        }

        var working: [Int] {
            rig.session.state.description.rings
                .filter { $0.isStarted && $0.isEnabled && $0.call != nil }.map(\.index)
        }
    }

    private let features = SessionRig.features.rawValue | 1 << 30

    @Test func `QEMU 7.2 from connect over a guest reset to the second start`() throws {
        var qemu = try Player([.setMemoryTable])
        qemu.send(.getFeatures)
        qemu.send(.getProtocolFeatures)
        qemu.number(.setProtocolFeatures, 0x10009)
        qemu.send(.getQueueCount)
        qemu.send(.setOwner)
        qemu.send(.getFeatures)
        for ring in [0, 1] as [UInt32] {
            try qemu.notifier(.setVringCall, ring)
            try qemu.notifier(.setVringError, ring)
        }
        for _ in 0..<4 { qemu.enable(0..<2) }
        qemu.number(.setFeatures, features)
        qemu.send(.getStatus)
        qemu.number(.setStatus, 0x8)
        try qemu.table()
        for ring in [0, 1] as [UInt32] { try qemu.start(ring) }
        qemu.send(.getStatus)
        qemu.number(.setStatus, 0xf)
        #expect(qemu.working == [0, 1])
        _ = qemu.rig.session.publish()

        qemu.rig.positions = [0: 4, 1: 10]
        qemu.number(.setStatus, 0)
        for ring in [0, 1] as [UInt32] { qemu.state(.getVringBase, ring, 0) }
        #expect(qemu.working.isEmpty)
        _ = qemu.rig.session.publish()
        for _ in 0..<6 { qemu.enable(0..<2) }
        qemu.number(.setFeatures, features)
        qemu.number(.setStatus, 0x8)
        try qemu.table()
        for ring in [0, 1] as [UInt32] { try qemu.start(ring) }
        qemu.number(.setStatus, 0xf)
        #expect(qemu.working == [0, 1])
        #expect(qemu.rig.session.publish().snapshot?.rings.map(\.nextAvailable) == [0, 0])
    }

    @Test func `QEMU 7.2 comes back to a restarted back-end with bases of its own`() throws {
        var qemu = try Player([.setMemoryTable])
        qemu.send(.getFeatures)
        qemu.number(.setProtocolFeatures, 0x10009)
        qemu.send(.setOwner)
        qemu.enable(0..<2)
        qemu.number(.setFeatures, features)
        qemu.number(.setStatus, 0x8)
        try qemu.table()
        try qemu.start(0, base: 6)
        try qemu.start(1, base: 12)
        try qemu.notifier(.setVringCall, 0)
        qemu.number(.setStatus, 0xf)
        let snapshot = try #require(qemu.rig.session.publish().snapshot)
        #expect(snapshot.rings.map(\.nextAvailable) == [6, 12])
    }

    @Test func `VU-B-04: QEMU 11.1 with two pairs and memory slots`() throws {
        let asks: Set<Request> = [
            .addRegion, .setVringKick, .setVringCall, .setVringError, .setVringEnable,
        ]
        var qemu = try Player(asks, pairs: 2)
        qemu.send(.getFeatures)
        for pair in [0, 1] as [UInt32] {
            qemu.send(.getProtocolFeatures)
            qemu.number(.setProtocolFeatures, 0x1a009)
            qemu.send(.getQueueCount)
            qemu.send(.getMemorySlots)
            if pair == 0 { qemu.send(.setOwner) }
            qemu.send(.getFeatures)
            for ring in (2 * pair)...(2 * pair + 1) {
                try qemu.notifier(.setVringCall, ring)
                try qemu.notifier(.setVringError, ring)
            }
        }
        qemu.send(.resetDevice)
        qemu.enable(0..<2)
        qemu.enable(2..<4, 0)
        for pair in [0, 1] as [UInt32] {
            qemu.number(.setFeatures, features)
            qemu.send(.getStatus)
            qemu.number(.setStatus, 0x8)
            if pair == 0 { try qemu.region() }
            for ring in (2 * pair)...(2 * pair + 1) { try qemu.start(ring) }
        }
        qemu.send(.getStatus)
        qemu.number(.setStatus, 0xf)
        qemu.enable(2..<4)
        #expect(qemu.working == [0, 1, 2, 3])
        _ = qemu.rig.session.publish()

        // Driver unload, then a start that does not send the region again (VU-B-11).
        for ring in 0..<4 as Range<UInt32> { qemu.state(.getVringBase, ring, 0) }
        qemu.number(.setStatus, 0)
        qemu.send(.resetDevice)
        qemu.enable(0..<2)
        qemu.number(.setFeatures, features)
        qemu.number(.setStatus, 0x8)
        for ring in 0..<2 as Range<UInt32> { try qemu.start(ring) }
        #expect(qemu.working == [0, 1])
        #expect(qemu.rig.session.state.memory.regions.count == 1)
    }

    @Test func `VU-R-05: QEMU without protocol features`() throws {
        var qemu = try Player([])
        qemu.send(.getFeatures)
        qemu.send(.setOwner)
        qemu.send(.getFeatures)
        try qemu.notifier(.setVringCall, 0)
        try qemu.notifier(.setVringCall, 1)
        qemu.number(.setFeatures, SessionRig.features.rawValue)
        try qemu.table()
        for ring in [0, 1] as [UInt32] { try qemu.start(ring) }
        #expect(qemu.working == [0, 1])
    }

    @Test func `DPDK virtio_user from connect over growing memory to the end`() throws {
        var dpdk = try Player([.setStatus])
        dpdk.send(.setOwner)
        dpdk.send(.getFeatures)
        dpdk.send(.getProtocolFeatures)
        dpdk.number(.setProtocolFeatures, 0x10009)
        try dpdk.notifier(.setVringCall, 0)
        try dpdk.notifier(.setVringCall, 1)
        dpdk.number(.setFeatures, features)
        dpdk.number(.setStatus, 0xb)
        for _ in 0..<3 { dpdk.send(.getStatus) }
        try dpdk.table()
        for ring in [0, 1] as [UInt32] { try dpdk.start(ring, call: false) }
        dpdk.enable(0..<2)
        dpdk.number(.setStatus, 0xf)
        #expect(dpdk.working == [0, 1])
        let first = try #require(dpdk.rig.session.publish().snapshot)
        #expect(first.rings.map(\.nextAvailable) == [0, 0])

        dpdk.rig.positions = [0: 700, 1: 64000]
        dpdk.enable(0..<2, 0)
        try dpdk.table()
        dpdk.enable(0..<2)
        let second = try #require(dpdk.rig.session.publish().snapshot)
        #expect(second.rings.map(\.nextAvailable) == [700, 64000])
        #expect(dpdk.working == [0, 1])

        dpdk.rig.positions = [0: 10592, 1: 10592]
        dpdk.enable(0..<2, 0)
        dpdk.state(.getVringBase, 0, 0)
        dpdk.state(.getVringBase, 1, 10592)
        #expect(
            dpdk.rig.last.reply
                == Message.reply(to: 11, payload: VringState(index: 1, number: 10592).encoded)
        )
        #expect(dpdk.rig.quiesceCount == 2)
    }
}
