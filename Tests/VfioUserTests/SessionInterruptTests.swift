import HostSystem
import Testing
import VfioUser

@Suite struct SessionInterruptTests {
    private func set(
        _ flags: InterruptSet.Flags,
        _ index: InterruptIndex = .msix,
        start: UInt32 = 0,
        count: UInt32 = 0
    ) -> [UInt8] {
        InterruptSet(flags: flags, index: index, start: start, count: count).encoded
    }

    private func events(_ count: Int) throws -> [EventFD] {
        var events: [EventFD] = []
        for _ in 0..<count { events.append(try EventFD()) }
        return events
    }

    @Test func `VFU-S-30: every index is known, and what has none says so`() throws {
        let rig = try SessionRig(vectors: 4)
        let counts: [UInt32] = [1, 0, 4, 1, 1]
        for index in 0..<5 as Range<UInt32> {
            let payload = try rig.answer(.deviceGetIRQInfo, InterruptInfo(index: index).encoded)
            let info = try #require(InterruptInfo(payload))
            #expect(info.argumentSize == 16 && info.index == index)
            #expect(info.count == counts[Int(index)])
            #expect(info.flags == (info.count > 0 ? .eventDescriptor : []))
        }
    }

    @Test func `HI-E14: an index that is not, or an argsz too small, is refused`() throws {
        let rig = try SessionRig()
        for index: UInt32 in [5, 6, .max] {
            let refused = try rig.refusal(.deviceGetIRQInfo, InterruptInfo(index: index).encoded)
            #expect(refused == .init(.argument))
        }
        let small = InterruptInfo(argumentSize: 15, index: 2).encoded
        #expect(try rig.refusal(.deviceGetIRQInfo, small) == .init(.argument))
        let garbage = InterruptInfo(flags: .init(rawValue: 7), index: 2, count: 99).encoded
        #expect(try rig.refusal(.deviceGetIRQInfo, garbage) == nil)
    }

    @Test(
        arguments: [
            (0x04, 2, 0, 1), (0x20, 2, 0, 1), (0x00, 2, 0, 1), (0x23, 2, 0, 1), (0x25, 2, 0, 1),
            (0x19, 2, 0, 1), (0x31, 2, 0, 1), (0x38, 2, 0, 1), (0x61, 2, 0, 1),
            (0x8000_0021, 2, 0, 1),
            (0x21, 5, 0, 1), (0x21, 0xffff_ffff, 0, 1), (0x21, 2, 4, 1), (0x21, 2, 3, 2),
            (0x21, 2, 1, 0xffff_ffff), (0x21, 2, 0xffff_ffff, 2), (0x21, 2, 0, 5), (0x24, 2, 4, 0),
            (0x24, 2, 0, 0), (0x22, 2, 0, 0), (0x21, 2, 1, 0), (0x09, 2, 0, 0), (0x11, 2, 0, 0),
            (0x21, 3, 0, 2), (0x24, 4, 0, 2), (0x09, 3, 0, 1), (0x11, 4, 0, 1), (0x21, 1, 0, 0),
            (0x21, 1, 0, 1), (0x22, 2, 0, 1), (0x22, 2, 0, 2),
        ] as [(UInt32, UInt32, UInt32, UInt32)]
    )
    func `VFU-S-31, HI-E16: requests that contradict themselves change nothing`(
        _ flags: UInt32,
        _ index: UInt32,
        _ start: UInt32,
        _ count: UInt32
    ) throws {
        let rig = try SessionRig(vectors: 4)
        let event = try EventFD()
        #expect(try rig.connect([event]) == nil)
        var payload = InterruptSet(flags: .init(rawValue: flags), index: .intx).encoded
        payload.replaceSubrange(
            8..<20,
            with: [index, start, count].flatMap { value in
                (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
            }
        )
        let before = rig.function.writes.count
        #expect(try rig.refusal(.deviceSetIRQs, payload) == .init(.interruptSet))
        #expect(rig.function.writes.count == before)
        rig.function.fire(0)
        #expect(event.drain() == 1)
    }

    @Test func `VFU-S-31, HI-E16: as many eventfds as interrupts, and only for eventfds`() throws {
        let rig = try SessionRig(vectors: 4)
        let two = try events(2).map(\.descriptor)
        func refusal(_ payload: [UInt8], _ all: [FileDescriptor]) throws -> SessionRig.Refused? {
            try rig.refusal(.deviceSetIRQs, payload, all)
        }
        #expect(
            try refusal(set([.eventDescriptors, .trigger], count: 3), two) == .init(.interruptSet)
        )
        #expect(
            try refusal(set([.eventDescriptors, .trigger], count: 1), two) == .init(.interruptSet)
        )
        #expect(try refusal(set([.none, .trigger], count: 2), two) == .init(.interruptSet))
        #expect(
            try refusal(set([.bools, .trigger], count: 2) + [1, 1], two) == .init(.interruptSet)
        )
        #expect(try refusal(set([.none, .trigger]), two) == .init(.interruptSet))
        let file = try MemoryFile(name: "no event", size: 4096).descriptor
        #expect(
            try refusal(set([.eventDescriptors, .trigger], count: 2), [two[0], file])
                == .init(.descriptorKind)
        )
        #expect(try refusal(set([.bools, .trigger], count: 2) + [1], []) == .init(.interruptSet))
        #expect(
            try refusal(set([.bools, .trigger], count: 1) + [1, 1], []) == .init(.interruptSet)
        )
        var small = set([.none, .trigger])
        small[0] = 19
        #expect(try refusal(small, []) == .init(.interruptSet))
        rig.function.fire(0)
        #expect(rig.session.strayInterrupts == 0 && rig.function.writes.isEmpty)
    }

    @Test func `VFU-S-36: an interrupt adds one, and never waits`() throws {
        let rig = try SessionRig(vectors: 4)
        let all = try events(4)
        #expect(try rig.connect(all) == nil)
        rig.function.fire(2)
        rig.function.fire(2)
        #expect(all.map { $0.drain() } == [0, 0, 2, 0])
        // Full: one more write would wait for a reader.
        #expect(all[1].descriptor.rawValue >= 0)
        for _ in 0..<3 { rig.function.fire(1) }
        #expect(all[1].drain() == 3)
    }

    @Test func `VFU-S-32: eventfds that are left out disconnect`() throws {
        let rig = try SessionRig(vectors: 4)
        let all = try events(4)
        #expect(try rig.connect(all) == nil)
        let some = set([.eventDescriptors, .trigger], start: 1, count: 2)
        #expect(try rig.refusal(.deviceSetIRQs, some) == nil)
        for vector in 0..<4 { rig.function.fire(vector) }
        #expect(all.map { $0.drain() } == [1, 0, 0, 1])
        #expect(rig.function.isPending(1) && rig.function.isPending(2))
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .trigger])) == nil)
        for vector in 0..<4 { rig.function.fire(vector) }
        #expect(all.map { $0.drain() } == [0, 0, 0, 0])
    }

    @Test func `VFU-S-33: a replaced or disconnected eventfd is closed`() throws {
        let rig = try SessionRig(vectors: 4)
        func connect() throws -> Held {
            let (descriptor, held) = try Held.event()
            let one = set([.eventDescriptors, .trigger], start: 1, count: 1)
            #expect(try rig.refusal(.deviceSetIRQs, one, [descriptor]) == nil)
            return held
        }
        let first = try connect()
        #expect(first.descriptor != nil)
        let second = try connect()
        #expect(first.descriptor == nil && second.descriptor != nil)
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .trigger])) == nil)
        #expect(second.descriptor == nil)
        let third = try connect()
        let none = set([.eventDescriptors, .trigger], start: 1, count: 1)
        #expect(try rig.refusal(.deviceSetIRQs, none) == nil)
        #expect(third.descriptor == nil)
    }

    @Test func `VFU-S-34: sixteen eventfds come in one message`() throws {
        let rig = try SessionRig(vectors: 40)
        let all = try events(40)
        #expect(try rig.connect(Array(all[0..<16])) == nil)
        #expect(try rig.connect(Array(all[16..<32]), from: 16) == nil)
        #expect(try rig.connect(Array(all[32..<40]), from: 32) == nil)
        for vector in 0..<40 { rig.function.fire(vector) }
        #expect(all.allSatisfy { $0.drain() == 1 })
    }

    @Test func `VFU-S-35: a vector nobody is connected to stays pending until somebody is`() throws
    {
        let rig = try SessionRig(vectors: 4)
        let first = try EventFD()
        #expect(try rig.connect([first]) == nil)
        rig.function.fire(3)
        #expect(rig.function.isPending(3) && rig.session.strayInterrupts == 0)
        let late = try EventFD()
        #expect(try rig.connect([late], from: 3) == nil)
        #expect(late.drain() == 1 && !rig.function.isPending(3) && first.drain() == 0)
    }

    @Test func `VFU-S-31: mask, unmask and loop-back reach the chosen vectors only`() throws {
        let rig = try SessionRig(vectors: 4)
        let all = try events(4)
        #expect(try rig.connect(all) == nil)
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .mask], start: 1, count: 2)) == nil)
        for vector in 0..<4 { rig.function.fire(vector) }
        #expect(all.map { $0.drain() } == [1, 0, 0, 1])
        let second = set([.bools, .unmask], count: 4) + [0, 0, 9, 0]
        #expect(try rig.refusal(.deviceSetIRQs, second) == nil)
        #expect(all.map { $0.drain() } == [0, 0, 1, 0])
        let loop = set([.bools, .trigger], count: 4) + [1, 0, 0, 1]
        #expect(try rig.refusal(.deviceSetIRQs, loop) == nil)
        #expect(all.map { $0.drain() } == [1, 0, 0, 1])
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .trigger], start: 2, count: 1)) == nil)
        #expect(all.map { $0.drain() } == [0, 0, 1, 0])
        #expect(try rig.refusal(.deviceSetIRQs, set([.eventDescriptors, .mask], count: 1)) == nil)
        rig.function.fire(0)
        #expect(all[0].drain() == 0)
        // What Cloud Hypervisor sends after an access.
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .unmask], .intx, count: 1)) == nil)
    }

    @Test func `VFU-S-32: MSI-X as QEMU programs it`() throws {
        let rig = try SessionRig(vectors: 4)
        let control = RegionAccess(offset: 0x42, region: 7, count: 2).encoded
        #expect(try rig.refusal(.regionWrite, control + [0, 0x80]) == nil)
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .trigger], .intx)) == nil)
        let one = set([.eventDescriptors, .trigger], count: 1)
        #expect(try rig.refusal(.deviceSetIRQs, one) == nil)
        rig.function.fire(0)
        #expect(rig.function.isPending(0))
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .trigger])) == nil)
        let both = try events(2)
        #expect(try rig.connect(both) == nil)
        #expect(both.map { $0.drain() } == [1, 0])
        #expect(try rig.refusal(.regionWrite, control + [0, 0]) == nil)
        #expect(try rig.refusal(.deviceSetIRQs, set([.none, .trigger])) == nil)
        rig.function.fire(0)
        #expect(!rig.function.isPending(0) && both[0].drain() == 0)
        // INTx is armed again: nothing fires it, and it can be taken back.
        let line = try EventFD()
        let arm = set([.eventDescriptors, .trigger], .intx, count: 1)
        #expect(try rig.refusal(.deviceSetIRQs, arm, [line.descriptor]) == nil)
        #expect(line.drain() == 0)
    }
}
