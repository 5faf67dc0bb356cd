import Glibc
import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// What a front-end may get wrong, message by message (HI section D).
@Suite struct SessionHostileTests {
    private func raw(_ request: UInt32, flags: UInt32, payload: [UInt8] = []) -> Message {
        Message(
            header: MessageHeader(
                request: request,
                flags: flags,
                payloadSize: UInt32(payload.count)
            ),
            payload: payload
        )
    }

    @Test(arguments: [0, 2, 3, 5, 0x11, 0x101, 0x8000_0001] as [UInt32])
    func `HI-D4, VU-H-01: wrong version, reserved flags and replies end the connection`(
        _ flags: UInt32
    ) {
        var rig = SessionRig()
        rig.negotiate()
        let step = rig.send(raw(1, flags: flags))
        #expect(step.close?.id == .header)
        #expect(step.reply == nil)
    }

    @Test(arguments: [0, 45, 0x1000, 0x1003, 0xffff_ffff] as [UInt32])
    func `HI-D5, VU-H-08: an unknown request is answered if asked, and else ignored`(_ id: UInt32) {
        var rig = SessionRig()
        rig.negotiate()
        let asked = rig.send(raw(id, flags: 9, payload: [1, 2, 3]))
        #expect(asked.reply == Message.reply(to: id, payload: NumberPayload.encode(1)))
        #expect(asked.refused?.id == .request)
        let silent = rig.send(raw(id, flags: 1))
        #expect(silent.refused?.id == .request)
        #expect(silent.reply == nil)
        #expect(silent.close == nil)
        #expect(rig.send(.getFeatures).isGood)
    }

    @Test func `HI-D6: requests of protocol features that are not there are refused`() throws {
        for rule in MessageTable.rules {
            guard rule.gate != .open, rule.gate != .vhostUserProtocol else { continue }
            var rig = SessionRig()
            rig.negotiate(protocolFeatures: [.replyAcknowledge])
            let asked = rig.send(rule.request, needsReply: true)
            #expect(asked.refused?.id == .notNegotiated, "\(rule.name)")
            #expect(asked.number == 1, "\(rule.name)")
            let silent = rig.send(rule.request)
            #expect(silent.reply == nil && silent.close == nil, "\(rule.name)")
        }
    }

    @Test(arguments: [41, 42, 43] as [UInt32])
    func `HI-D44: probe requests without probing are refused`(_ id: UInt32) {
        var rig = SessionRig()
        rig.negotiate()
        let step = rig.send(raw(id, flags: 9))
        #expect(step.refused?.id == .notNegotiated)
        #expect(step.close == nil)
    }

    @Test func `HI-D3, VU-H-07: payloads of a wrong size are refused, or end the connection`() {
        for rule in MessageTable.rules {
            var rig = SessionRig()
            rig.negotiate()
            guard rig.session.state.isOpen(rule.gate), rule.request != .setMemoryTable else {
                continue
            }
            for count in [1, 7, 9, 39, 41, 4096] where !rule.payload.allows(count) {
                let payload = [UInt8](repeating: 0, count: count)
                let asked = rig.send(rule.request, payload, needsReply: true)
                #expect(asked.refused?.id == .size, "\(rule.name) \(count)")
                #expect((asked.number == 1) != (asked.close != nil), "\(rule.name) \(count)")
                let silent = rig.send(rule.request, payload)
                #expect(silent.close?.id == .size, "\(rule.name) \(count)")
            }
        }
    }

    @Test func `HI-D7: descriptors with a request that takes none are closed and refused`() throws {
        for rule in MessageTable.rules {
            var rig = SessionRig()
            rig.negotiate()
            guard rig.session.state.isOpen(rule.gate), !rule.descriptors.allows(1),
                case .exactly(let size) = rule.payload
            else { continue }
            weak var stray: FileDescriptor?
            do {
                let descriptor = try EventFD().descriptor
                stray = descriptor
                let payload = [UInt8](repeating: 0, count: size)
                let step = rig.send(rule.request, payload, [descriptor], needsReply: true)
                #expect(step.refused?.id == .descriptors, "\(rule.name)")
            }
            #expect(stray == nil, "\(rule.name)")
        }
    }

    @Test func `HI-D7, VU-H-03: descriptors behind the first byte are refused`() {
        var rig = SessionRig()
        rig.negotiate()
        var message = Message(.setOwner, needsReply: true)
        message.hadLateDescriptors = true
        #expect(rig.send(message).refused?.id == .descriptors)
    }

    @Test func `HI-D8: ADD_MEM_REG needs exactly one descriptor`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let memory = try TestMemory()
        let wire = SingleRegionPayload(memory.region).encoded
        for count in [0, 2, 32] {
            let files = try (0..<count).map { _ in try memory.file.descriptor.duplicate() }
            let step = rig.send(.addRegion, wire, files, needsReply: true)
            #expect(step.refused?.id == .descriptors)
        }
        #expect(rig.session.state.memory.regions.isEmpty)
    }

    @Test(arguments: [Request.setVringKick, .setVringCall, .setVringError])
    func `HI-D10, HI-D24: kick, call and error must be eventfds`(_ request: Request) throws {
        var rig = SessionRig()
        rig.negotiate()
        let (socket, _) = try UnixSocket.pair()
        let event = try EventFD()
        var pipe: [Int32] = [-1, -1]
        try #require(unsafe Glibc.pipe(&pipe) == 0)
        let path = "/proc/self/fd/\(event.descriptor.rawValue)"
        let wrong = [
            FileDescriptor(owning: unsafe open("/", O_RDONLY | O_DIRECTORY)),
            FileDescriptor(owning: unsafe open("/dev/zero", O_RDWR)),
            FileDescriptor(owning: unsafe open(path, 0o10_000_000)),  // O_PATH
            try epollDescriptor(),
            FileDescriptor(owning: pipe[0]), FileDescriptor(owning: pipe[1]),
            socket.descriptor, try TestMemory().file.descriptor,
        ]
        for descriptor in wrong {
            let step = rig.notifier(request, 0, descriptor, needsReply: true)
            #expect(step.refused?.id == .descriptorKind)
            #expect(step.number == 1)
        }
        let ring = rig.session.state.rings[0]
        #expect(ring.kick == nil && ring.call == nil && ring.error == nil && !ring.isStarted)
    }

    @Test(arguments: [2, 3, 0xffff, 0x1_0000, 0xffff_ffff] as [UInt32])
    func `HI-D18, VU-B-16: a ring index past the last ring is refused in full width`(
        _ index: UInt32
    ) throws {
        var rig = SessionRig()
        rig.negotiate()
        let requests: [Request] = [.setVringSize, .setVringBase, .setVringEnable]
        for request in requests {
            let step = rig.state(request, index, 1, needsReply: true)
            #expect(step.refused?.id == .ringIndex)
            #expect(step.number == 1)
        }
        var address = try TestMemory().ring(0)
        address.index = index
        let step = rig.send(.setVringAddress, address.encoded, needsReply: true)
        #expect(step.refused?.id == .ringIndex)
    }

    @Test(arguments: [2, 0x80, 0x200, 0x1_0000, 0x1_0000_0000, UInt64.max & ~0x100])
    func `HI-D18: a kick's ring index is compared in full width`(_ index: UInt64) throws {
        var rig = SessionRig()
        rig.negotiate()
        for request in [Request.setVringKick, .setVringCall, .setVringError] {
            let step = rig.notifier(request, index, try EventFD().descriptor, needsReply: true)
            #expect(step.refused?.id == .ringIndex)
        }
    }

    @Test func `HI-D18: GET_VRING_BASE of no ring ends the connection, as its sender waits`() {
        var rig = SessionRig()
        rig.negotiate()
        let step = rig.state(.getVringBase, 2, needsReply: true)
        #expect(step.close?.id == .ringIndex)
    }

    @Test(arguments: [0, 3, 255, 257, 65536, 0x1_0100, 0xffff_ffff] as [UInt32])
    func `HI-D19: a ring size of 0, no power of two, or too large is refused`(_ size: UInt32) {
        var rig = SessionRig()
        rig.negotiate()
        rig.state(.setVringSize, 0, 64)
        let step = rig.state(.setVringSize, 0, size, needsReply: true)
        #expect(step.refused?.id == .ringSize)
        #expect(rig.session.state.rings[0].size == 64)
    }

    @Test func `HI-D19: the device's own maximum counts`() {
        let offer = BackendOffer(features: SessionRig.features, maximumRingSize: 1024)
        var rig = SessionRig(offer: offer)
        rig.negotiate()
        #expect(rig.state(.setVringSize, 0, 1024, needsReply: true).number == 0)
        #expect(rig.state(.setVringSize, 0, 2048, needsReply: true).refused?.id == .ringSize)
    }

    @Test func `HI-D20: ring addresses that are not aligned are refused`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let memory = try TestMemory()
        var cases = [memory.ring(0), memory.ring(0), memory.ring(0)]
        cases[0].descriptorArea += 8
        cases[1].driverArea += 1
        cases[2].deviceArea += 2
        for address in cases {
            let step = rig.send(.setVringAddress, address.encoded, needsReply: true)
            #expect(step.refused?.id == .ringAlignment)
        }
        #expect(rig.session.state.rings[0].addresses == nil)
    }

    @Test func `HI-D20: alignment is that of guest addresses`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let skewed = try TestMemory(userAddress: 0x7f00_0000_0008)
        rig.send(.setMemoryTable, skewed.table.encoded, [skewed.file.descriptor])
        rig.state(.setVringSize, 0, 256)
        var address = skewed.ring(0)
        address.descriptorArea += 8
        let step = rig.send(.setVringAddress, address.encoded, needsReply: true)
        #expect(step.refused?.id == .ringAlignment)
    }

    @Test func `HI-D20: ring addresses outside memory are refused`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let memory = try TestMemory()
        rig.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        rig.state(.setVringSize, 0, 256)
        let end = memory.region.userAddress + memory.region.length
        var cases = Array(repeating: memory.ring(0), count: 5)
        cases[0].descriptorArea = memory.region.userAddress - 16
        cases[1].descriptorArea = end - 16 * 255
        cases[2].driverArea = end
        cases[3].deviceArea = UInt64.max & ~15
        cases[4].deviceArea = end - 8 * 256
        for address in cases {
            let step = rig.send(.setVringAddress, address.encoded, needsReply: true)
            #expect(step.refused?.id == .ringArea)
        }
        #expect(rig.session.state.rings[0].addresses == nil)
    }

    @Test func `HI-D20: flags of SET_VRING_ADDR without logging are refused`() throws {
        var rig = SessionRig()
        rig.negotiate()
        for flags in [1, 2, 0x8000_0000] as [UInt32] {
            var address = try TestMemory().ring(0)
            address.flags = flags
            let step = rig.send(.setVringAddress, address.encoded, needsReply: true)
            #expect(step.refused?.id == .notNegotiated)
        }
    }

    @Test func `HI-D20, HI-D21: a working ring cannot be moved, resized or set back`() throws {
        var (rig, memory) = try SessionRig.working()
        let moved = rig.send(.setVringAddress, memory.ring(0).encoded, needsReply: true)
        #expect(moved.refused?.id == .order)
        #expect(rig.state(.setVringSize, 0, 64, needsReply: true).refused?.id == .order)
        #expect(rig.state(.setVringBase, 0, 1, needsReply: true).refused?.id == .order)
        #expect(rig.quiesceCount == 0)
        #expect(rig.session.publish().snapshot == nil)
    }

    @Test(arguments: [0x1_0000, 0xffff_ffff] as [UInt32])
    func `HI-D21: a base above 16 bits is refused, and any other taken`(_ base: UInt32) {
        var rig = SessionRig()
        rig.negotiate()
        #expect(rig.state(.setVringBase, 0, 0xffff, needsReply: true).number == 0)
        #expect(rig.state(.setVringBase, 0, base, needsReply: true).refused?.id == .ringBase)
        #expect(rig.session.state.rings[0].base == 0xffff)
    }

    @Test(arguments: [2, 256, 0xffff_ffff] as [UInt32])
    func `a ring is enabled by 1 and disabled by 0 and nothing else`(_ value: UInt32) {
        var rig = SessionRig()
        rig.negotiate()
        #expect(rig.state(.setVringEnable, 0, value, needsReply: true).refused?.id == .value)
        #expect(!rig.session.state.rings[0].isEnabled)
    }

    @Test func `HI-D25: signalling a full call counter does not block`() throws {
        var rig = SessionRig()
        let call = try EventFD().descriptor
        let raw = call.rawValue
        try #require(fcntl(raw, F_SETFL, fcntl(raw, F_GETFL) & ~O_NONBLOCK) == 0)
        var most: UInt64 = .max - 1
        try #require(unsafe write(raw, &most, 8) == 8)
        #expect(rig.notifier(.setVringCall, 0, call).isGood)
        #expect(EventFD.signal(raw) == .full)
    }

    @Test func `HI-D26: one eventfd may kick and call all rings`() throws {
        var (rig, _) = try SessionRig.working()
        let event = try EventFD()
        for ring in [0, 1] as [UInt64] {
            for request in [Request.setVringKick, .setVringCall] {
                let copy = try event.descriptor.duplicate()
                #expect(rig.notifier(request, ring, copy, needsReply: true).number == 0)
            }
        }
        let rings = try #require(rig.session.publish().snapshot).rings
        #expect(rings.allSatisfy { $0.isStarted && $0.kick !== $0.call })
        #expect(rig.session.publish().signals.isEmpty, "one swap, one signal: no loop on our own")
    }

    @Test func `HI-D36: the back-end channel is not offered, its descriptor is closed`() throws {
        var rig = SessionRig()
        rig.negotiate()
        weak var channel: FileDescriptor?
        do {
            let (socket, _) = try UnixSocket.pair()
            channel = socket.descriptor
            let step = rig.send(.setBackendChannel, [], [socket.descriptor], needsReply: true)
            #expect(step.refused?.id == .notNegotiated)
            #expect(step.number == 1)
        }
        #expect(channel == nil)
    }

    @Test func `without reply-ack the wish for a reply is ignored`() {
        var rig = SessionRig()
        rig.negotiate(protocolFeatures: [.multiqueue])
        #expect(rig.send(.setOwner, needsReply: true).reply == nil)
        #expect(rig.state(.setVringSize, 0, 5, needsReply: true).close?.id == .ringSize)
    }

    @Test func `a reply of its own is not doubled by the wish for one`() {
        var rig = SessionRig()
        rig.negotiate()
        let step = rig.send(.getFeatures, needsReply: true)
        #expect(step.number == rig.session.state.offer.offeredFeatures.rawValue)
    }
}
