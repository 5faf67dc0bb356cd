import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct SessionStatusTests {
    @Test func `the status reads back as it was set`() {
        var rig = SessionRig()
        rig.negotiate()
        #expect(rig.send(.getStatus).number == 0)
        for status in [0x8, 0xf] as [UInt64] {
            #expect(rig.number(.setStatus, status, needsReply: true).number == 0)
            #expect(rig.send(.getStatus).number == status)
        }
    }

    @Test func `HI-D34: a status that takes bits back is refused, the old one stays`() {
        var rig = SessionRig()
        rig.negotiate()
        rig.number(.setStatus, 0xf)
        let step = rig.number(.setStatus, 0xb, needsReply: true)
        #expect(step.refused?.id == .status)
        #expect(step.number == 1)
        #expect(rig.send(.getStatus).number == 0xf)
    }

    @Test func `HI-D34: without an acknowledgement the connection still goes on`() {
        var rig = SessionRig()
        rig.negotiate()
        rig.number(.setStatus, 0xf)
        let step = rig.number(.setStatus, 0x1)
        #expect(step.refused?.id == .status)
        #expect(step.close == nil)
        #expect(rig.send(.getStatus).number == 0xf)
    }

    @Test(arguments: [0x100, 0x1_0000_0000, UInt64.max])
    func `HI-D34: a status of more than a byte is refused`(_ value: UInt64) {
        var rig = SessionRig()
        rig.negotiate()
        #expect(rig.number(.setStatus, value, needsReply: true).refused?.id == .status)
        #expect(rig.send(.getStatus).number == 0)
    }

    @Test func `VU-B-13: a ring works without DRIVER_OK`() throws {
        let (rig, _) = try SessionRig.working()
        #expect(rig.session.state.status.isEmpty)
        let rings = rig.session.state.description.rings
        #expect(rings.count == 2)
        #expect(rings.allSatisfy { $0.isStarted && $0.isEnabled })
    }

    @Test(arguments: [Request.resetDevice, .setStatus])
    func `HI-D34, VU-B-11: a reset under traffic stops the rings and keeps the memory`(
        _ request: Request
    ) throws {
        var (rig, _) = try SessionRig.working()
        rig.positions = [0: 77, 1: 4000]
        let call = try #require(rig.session.state.rings[0].call)
        rig.number(.setStatus, 0xf)
        let payload = request == .setStatus ? NumberPayload.encode(0) : []
        #expect(rig.send(request, payload, needsReply: true).number == 0)
        #expect(rig.quiesceCount == 1)
        #expect(rig.session.state.rings.allSatisfy { !$0.isStarted && !$0.isEnabled })
        #expect(rig.session.state.memory.regions.count == 1)
        #expect(rig.session.state.rings[0].call === call)
        #expect(rig.send(.getStatus).number == 0)
    }

    @Test func `VU-R-03: after status 0 GET_VRING_BASE still says where the ring stopped`() throws {
        var (rig, _) = try SessionRig.working()
        rig.positions = [0: 4, 1: 10]
        rig.number(.setStatus, 0)
        rig.positions = [:]
        for (ring, position) in [(0, 4), (1, 10)] as [(UInt32, UInt32)] {
            let base = VringState(index: ring, number: position)
            #expect(
                rig.state(.getVringBase, ring).reply
                    == Message.reply(to: 11, payload: base.encoded)
            )
        }
        #expect(rig.quiesceCount == 1)
    }

    @Test func `HI-D6: status requests need their protocol feature`() {
        var rig = SessionRig()
        rig.negotiate(protocolFeatures: [.replyAcknowledge])
        for request in [Request.getStatus, .setStatus, .resetDevice, .getMemorySlots] {
            let step = rig.send(request, needsReply: true)
            #expect(step.refused?.id == .notNegotiated)
            #expect(step.number == 1)
            #expect(step.close == nil)
        }
    }
}
