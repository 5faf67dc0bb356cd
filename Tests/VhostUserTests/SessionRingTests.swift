import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct SessionRingTests {
    @Test func `VU-R-01: a ring starts with SET_VRING_KICK`() throws {
        var rig = SessionRig()
        let memory = try TestMemory()
        rig.negotiate()
        rig.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        rig.state(.setVringSize, 1, 256)
        rig.state(.setVringBase, 1, 9)
        rig.send(.setVringAddress, memory.ring(1).encoded)
        let before = try #require(rig.session.state.description.rings.first)
        #expect(before.index == 1)
        #expect(!before.isStarted)
        let kick = try EventFD()
        rig.notifier(.setVringKick, 1, kick.descriptor)
        let ring = try #require(rig.session.state.description.rings.first)
        #expect(ring.isStarted)
        #expect(!ring.isEnabled)
        #expect(ring.kick === kick.descriptor)
        #expect(ring.size == 256)
        #expect(ring.nextAvailable == 9)
        #expect(ring.descriptorArea == 0x10000)
        #expect(ring.driverArea == 0x14000)
        #expect(ring.deviceArea == 0x18000)
    }

    @Test func `VU-B-12: call, error and enable come before features and memory`() throws {
        var rig = SessionRig()
        let call = try EventFD()
        #expect(rig.notifier(.setVringCall, 0, call.descriptor).isGood)
        #expect(rig.notifier(.setVringError, 0, try EventFD().descriptor).isGood)
        #expect(rig.state(.setVringEnable, 0, 1).isGood)
        #expect(rig.session.publish().snapshot == nil, "nothing a device could use has changed")
        let memory = try TestMemory()
        rig.negotiate()
        rig.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        rig.state(.setVringSize, 0, 256)
        rig.send(.setVringAddress, memory.ring(0).encoded)
        rig.notifier(.setVringKick, 0, try EventFD().descriptor)
        let ring = try #require(rig.session.publish().snapshot?.rings.first)
        #expect(ring.isStarted && ring.isEnabled)
        #expect(ring.call === call.descriptor)
    }

    @Test func `VU-B-15, HI-D23: a kick without a descriptor asks for polling`() throws {
        var (rig, _) = try SessionRig.working()
        #expect(rig.notifier(.setVringKick, 0, nil, needsReply: true).number == 0)
        let ring = rig.session.state.description.rings[0]
        #expect(ring.isStarted)
        #expect(ring.kick == nil)
    }

    @Test(arguments: [Request.setVringKick, .setVringCall, .setVringError])
    func `HI-D23: the mark and the descriptor must agree`(_ request: Request) throws {
        var rig = SessionRig()
        rig.negotiate()
        let marked = VringDescriptor(index: 0, hasDescriptor: false).encoded
        let unmarked = VringDescriptor(index: 0, hasDescriptor: true).encoded
        let descriptor = try EventFD().descriptor
        #expect(rig.send(request, marked, needsReply: true).number == 0)
        let surplus = rig.send(request, marked, [descriptor], needsReply: true)
        #expect(surplus.refused?.id == .descriptors)
        let missing = rig.send(request, unmarked, needsReply: true)
        #expect(missing.refused?.id == .descriptors)
        let two = rig.send(
            request,
            unmarked,
            [descriptor, try EventFD().descriptor],
            needsReply: true
        )
        #expect(two.refused?.id == .descriptors)
    }

    @Test func `VU-R-02: GET_VRING_BASE waits for the device and gives its position`() throws {
        var (rig, _) = try SessionRig.working()
        rig.positions = [0: 10592, 1: 65535]
        let answers = [rig.state(.getVringBase, 0), rig.state(.getVringBase, 1)]
        #expect(
            answers.map(\.reply) == [
                Message.reply(to: 11, payload: VringState(index: 0, number: 10592).encoded),
                Message.reply(to: 11, payload: VringState(index: 1, number: 65535).encoded),
            ]
        )
        #expect(rig.quiesceCount == 1, "after the first the device works on nothing")
        let snapshot = try #require(rig.session.publish().snapshot)
        #expect(snapshot.rings.allSatisfy { !$0.isStarted && $0.kick == nil })
    }

    @Test func `VU-R-02: the number in GET_VRING_BASE itself means nothing`() throws {
        var (rig, _) = try SessionRig.working()
        rig.positions = [1: 3]
        let step = rig.state(.getVringBase, 1, 10592)
        #expect(
            step.reply == Message.reply(to: 11, payload: VringState(index: 1, number: 3).encoded)
        )
    }

    @Test func `VU-R-03: GET_VRING_BASE of a stopped ring gives the stored base`() {
        var rig = SessionRig()
        rig.positions = [0: 999]
        rig.state(.setVringBase, 0, 41)
        let step = rig.state(.getVringBase, 0)
        #expect(
            step.reply == Message.reply(to: 11, payload: VringState(index: 0, number: 41).encoded)
        )
        #expect(rig.quiesceCount == 0)
    }

    @Test func `HI-D22: GET_VRING_BASE of a ring never set up gives 0`() {
        var rig = SessionRig()
        let step = rig.state(.getVringBase, 1)
        #expect(
            step.reply == Message.reply(to: 11, payload: VringState(index: 1, number: 0).encoded)
        )
    }

    @Test func `a ring started and stopped before the device heard of it gives its base`() throws {
        var (rig, memory) = try SessionRig.working()
        rig.positions = [0: 100]
        rig.state(.getVringBase, 0)
        rig.state(.setVringBase, 0, 7)
        rig.notifier(.setVringKick, 0, try EventFD().descriptor)
        let step = rig.state(.getVringBase, 0)
        #expect(
            step.reply == Message.reply(to: 11, payload: VringState(index: 0, number: 7).encoded)
        )
        _ = memory
    }

    @Test func `VU-R-06: a ring that starts again goes on at the base it is given`() throws {
        var (rig, memory) = try SessionRig.working()
        rig.positions = [0: 12]
        rig.state(.getVringBase, 0)
        _ = rig.session.publish()
        rig.state(.setVringSize, 0, 512)
        rig.state(.setVringBase, 0, 12)
        rig.send(.setVringAddress, memory.ring(0).encoded)
        rig.notifier(.setVringKick, 0, try EventFD().descriptor)
        let ring = try #require(rig.session.publish().snapshot?.rings.first)
        #expect(ring.isStarted && ring.isEnabled)
        #expect(ring.nextAvailable == 12)
        #expect(ring.size == 512)
        #expect(ring.call != nil, "a call descriptor survives a stop: DPDK sends it only once")
    }

    @Test func `VU-B-14: a new call descriptor alone has its own notice`() throws {
        var (rig, _) = try SessionRig.working()
        let call = try EventFD()
        rig.notifier(.setVringCall, 1, call.descriptor)
        let news = rig.session.publish()
        #expect(news.snapshot == nil)
        #expect(news.calls.map(\.ring) == [1])
        #expect(news.calls.first?.call === call.descriptor)
        #expect(news.signals.map(\.rawValue) == [call.descriptor.rawValue])
        #expect(rig.quiesceCount == 0)
        #expect(rig.session.publish().calls.isEmpty)
    }

    @Test func `VU-R-07: a new call descriptor of a stopped ring is not signalled`() throws {
        var (rig, _) = try SessionRig.working()
        rig.state(.getVringBase, 0)
        rig.state(.getVringBase, 1)
        _ = rig.session.publish()
        rig.notifier(.setVringCall, 1, try EventFD().descriptor)
        #expect(rig.session.publish().signals.isEmpty)
    }

    @Test func `VU-B-14: replaced descriptors are closed`() throws {
        var (rig, _) = try SessionRig.working()
        weak let kick = rig.session.state.rings[0].kick
        weak let call = rig.session.state.rings[0].call
        rig.notifier(.setVringCall, 0, try EventFD().descriptor)
        rig.notifier(.setVringKick, 0, try EventFD().descriptor)
        _ = rig.session.publish()
        #expect(kick == nil)
        #expect(call == nil)
    }

    @Test func `a ring is disabled only once the device has stopped, and enabled without`() throws {
        var (rig, _) = try SessionRig.working()
        #expect(rig.state(.setVringEnable, 0, 0, needsReply: true).number == 0)
        #expect(rig.quiesceCount == 1)
        #expect(rig.session.publish().snapshot?.rings[0].isEnabled == false)
        rig.state(.setVringEnable, 0, 1)
        #expect(rig.quiesceCount == 1)
        #expect(rig.session.publish().snapshot?.rings[0].isEnabled == true)
    }

    @Test func `enabling what is enabled disturbs nobody`() throws {
        var (rig, _) = try SessionRig.working()
        for _ in 0..<5 { rig.state(.setVringEnable, 0, 1) }
        #expect(rig.quiesceCount == 0)
        #expect(rig.session.publish().snapshot == nil)
    }

    @Test func `VU-B-17: a ring outside memory signals its error descriptor once`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let error = try EventFD()
        rig.notifier(.setVringError, 0, error.descriptor)
        rig.state(.setVringSize, 0, 256)
        let elsewhere = try TestMemory(userAddress: 0x1000_0000)
        let memory = try TestMemory()
        rig.send(.setVringAddress, elsewhere.ring(0).encoded)
        rig.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        let step = rig.notifier(.setVringKick, 0, try EventFD().descriptor)
        #expect(step.errorSignals.map(\.rawValue) == [error.descriptor.rawValue])
        #expect(rig.session.state.description.rings.isEmpty)
        #expect(rig.state(.setVringEnable, 0, 1).errorSignals.isEmpty)
        // The right memory heals it (HI-D37: whatever the order).
        rig.send(.setMemoryTable, elsewhere.table.encoded, [elsewhere.file.descriptor])
        #expect(rig.session.state.description.rings.map(\.isStarted) == [true])
    }

    @Test func `HI-D37: a ring works once all of it has come, in any order`() throws {
        let memory = try TestMemory()
        let steps: [(inout SessionRig) throws -> Void] = [
            { $0.state(.setVringSize, 0, 128) },
            { $0.send(.setVringAddress, memory.ring(0).encoded) },
            { $0.notifier(.setVringKick, 0, try EventFD().descriptor) },
            { $0.state(.setVringEnable, 0, 1) },
            { $0.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor]) },
        ]
        for rotation in steps.indices {
            var rig = SessionRig()
            rig.negotiate()
            for step in steps[rotation...] + steps[..<rotation] {
                #expect(
                    rig.session.state.description.rings.first?.isEnabled != true || rotation > 0
                )
                try step(&rig)
                #expect(rig.last.isGood)
            }
            let ring = try #require(rig.session.publish().snapshot?.rings.first)
            #expect(ring.isStarted && ring.isEnabled)
        }
    }
}
