import HostSystem
import PCI
import RingSupport
import Testing
import VfioUser

/// Eventfds between a server and its client.
@Suite struct ServerEventTests {
    @Test func `VFU-S-36: a client whose eventfd blocks us is sent away`() throws {
        let rig = try ServerRig()
        let blocking = try BlockingEvent()
        let fine = try EventFD()
        let caller = try rig.negotiated()
        let set = InterruptSet(flags: [.eventDescriptors, .trigger], index: .msix, count: 2)
        let all = [blocking.event.descriptor, fine.descriptor]
        #expect(try caller.ask(.deviceSetIRQs, set.encoded, all).isEmpty)
        // The client takes the flag away again that we set.
        blocking.block()
        let start = MonotonicClock.now
        rig.function.fire(0)
        rig.function.fire(0)
        rig.function.fire(1)
        #expect(MonotonicClock.now - start < 1_000_000_000)
        #expect(fine.drain() == 1 && rig.server.isConnected)
        #expect(rig.server.refusals == [.blockedEvent: 1])
        #expect(try caller.isClosed() && rig.lastEnd?.hasPrefix("notify/blocked") == true)
        #expect(try rig.negotiated().ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-S-47: firing many eventfds that block costs the time of one`() throws {
        let rig = try ServerRig(vectors: 128)
        let blocking = try BlockingEvent()
        let caller = try rig.negotiated()
        for start in stride(from: 0 as UInt32, to: 128, by: 16) {
            let set = InterruptSet(
                flags: [.eventDescriptors, .trigger],
                index: .msix,
                start: start,
                count: 16
            )
            let all = [FileDescriptor](repeating: blocking.event.descriptor, count: 16)
            #expect(try caller.ask(.deviceSetIRQs, set.encoded, all).isEmpty)
        }
        blocking.block()
        let start = MonotonicClock.now
        let fire = InterruptSet(flags: [.none, .trigger], index: .msix, count: 128).encoded
        try caller.say(message(.deviceSetIRQs, id: 1, fire))
        #expect(try caller.isClosed())
        #expect(MonotonicClock.now - start < 1_500_000_000)
        #expect(rig.server.refusals == [.blockedEvent: 1])
    }

    @Test func `VFU-S-26: a doorbell that is signalled is a store to its register`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let request = RegionDescriptors(argumentSize: 4096, index: 0).encoded
        for _ in 0..<3 {
            #expect(RegionDescriptors(try caller.ask(.deviceGetRegionIOFDs, request))?.count == 2)
        }
        // Asked three times, they are still the same two.
        #expect(caller.descriptors.count == 6)
        try rig.turns()
        for (number, descriptor) in caller.descriptors.enumerated() {
            EventFD.signal(descriptor.rawValue)
            EventFD.signal(descriptor.rawValue)
            try rig.turns()
            let last = try #require(rig.function.writes.last)
            #expect(last.offset == FakeFunction.doorbells + UInt64(4 * (number % 2)))
            #expect(last.bar == 0 && last.width == .word)
        }
        #expect(rig.function.writes.count == 6)
        rig.server.disconnect("enough")
        for descriptor in caller.descriptors { EventFD.signal(descriptor.rawValue) }
        try rig.turns()
        #expect(rig.function.writes.count == 6)
    }
}
