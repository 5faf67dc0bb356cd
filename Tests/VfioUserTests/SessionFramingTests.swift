import GuestMemory
import HostSystem
import Testing
import VfioUser

@Suite struct SessionFramingTests {
    @Test func `VFU-H-02: a reply has the command's id and number`() throws {
        let rig = try SessionRig()
        let step = rig.send(Command.deviceGetInfo.rawValue, DeviceInfo().encoded, id: 0xabcd)
        let header = try #require(step.reply.flatMap(MessageHeader.init))
        #expect(header.identifier == 0xabcd && header.command == 4)
        #expect(header.flags == .reply && header.error == 0)
    }

    @Test func `VFU-H-03: an error reply is the header alone`() throws {
        let rig = try SessionRig()
        let step = rig.send(.deviceGetInfo, DeviceInfo(argumentSize: 15).encoded)
        let reply = try #require(step.reply)
        #expect(reply.count == 16 && MessageHeader(reply)?.error == 22)
        #expect(!step.closes)
    }

    @Test func `VFU-H-04, HI-E20: who wants no reply gets none, and no error either`() throws {
        let rig = try SessionRig()
        let good = RegionAccess(offset: 8, region: 0, count: 4).encoded + [1, 2, 3, 4]
        let step = rig.send(.regionWrite, good, flags: .noReply)
        #expect(step.reply == nil && step.refused == nil)
        #expect(rig.function.writes.last?.value == 0x0403_0201)
        let bad = rig.send(.regionWrite, Array(good.dropLast()), flags: .noReply)
        #expect(bad.reply == nil && bad.refused?.id == .regionRange)
        let unknown = rig.send(99, [1], flags: .noReply)
        #expect(unknown.reply == nil && unknown.refused?.id == .command)
        #expect(rig.session.silentFailures == 2)
    }

    @Test func `VFU-H-05, HI-E4: a size that cannot be is answered, and the end`() throws {
        let rig = try SessionRig()
        for size in [0, 15, UInt32(MessageHeader.largestMessage) + 1, .max] {
            let header = MessageHeader(identifier: 9, command: 9, messageSize: size)
            let step = rig.session.accept(.refused(header: header.encoded))
            #expect(step.closes && step.refused?.id == .size)
            #expect(step.reply.flatMap(MessageHeader.init)?.error == 22)
        }
    }

    @Test func `VFU-H-06, HI-E5: a reply to nothing is refused`() throws {
        let rig = try SessionRig()
        let step = rig.send(.dmaRead, DMAAccess(address: 0, count: 0).encoded, flags: .reply)
        #expect(step.refused?.id == .command && !step.closes)
        #expect(step.reply.flatMap(MessageHeader.init)?.error == 22)
        let strange = rig.send(.deviceGetInfo, DeviceInfo().encoded, flags: .init(rawValue: 2))
        #expect(strange.refused?.id == .command && !strange.closes)
    }

    @Test func `VFU-H-07, HI-E5: unknown commands are refused and nothing ends`() throws {
        let rig = try SessionRig()
        for number: UInt16 in [0, 14, 19, 0xffff] {
            let step = rig.send(number, [UInt8](repeating: 0, count: 32))
            #expect(step.refused?.id == .command && !step.closes)
            #expect(step.reply.flatMap(MessageHeader.init)?.error == 22)
        }
        #expect(
            try rig.refusal(.dmaRead, DMAAccess(address: 0, count: 0).encoded) == .init(.command)
        )
        #expect(
            try rig.refusal(.dmaWrite, DMAAccess(address: 0, count: 0).encoded) == .init(.command)
        )
        #expect(try rig.answer(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-H-08, HI-E5: every command needs its payload`() throws {
        let rig = try SessionRig()
        for command in Command.allCases where command != .deviceReset {
            let step = rig.send(command)
            #expect(step.refused != nil, "\(command)")
            #expect(step.reply.flatMap(MessageHeader.init)?.error == 22)
            #expect(!step.closes)
        }
        for (command, size) in [
            (Command.dmaMap, 31), (.dmaUnmap, 23), (.deviceGetInfo, 15), (.deviceGetRegionInfo, 31),
            (.deviceGetRegionIOFDs, 15), (.deviceGetIRQInfo, 15), (.deviceSetIRQs, 19),
            (.regionRead, 15), (.regionWrite, 15), (.regionWriteMulti, 7), (.deviceFeature, 7),
        ] {
            let payload = [UInt8](repeating: 0, count: size)
            #expect(try rig.refusal(command, payload) == .init(.command), "\(command)")
        }
    }

    @Test func `VFU-H-07: flags nobody defined make no command`() throws {
        let rig = try SessionRig()
        for bits: UInt32 in [1 << 5, 1 << 6, 1 << 31] {
            let step = rig.send(.deviceReset, flags: .init(rawValue: bits))
            #expect(step.refused?.id == .command && !step.closes)
        }
        #expect(rig.function.resets == 0)
    }

    @Test func `VFU-H-09, HI-E6: descriptors of a refused message are closed`() throws {
        let rig = try SessionRig()
        func isClosed(_ command: UInt16, _ payload: [UInt8], late: Bool = false) throws -> Bool {
            var (descriptor, held): (FileDescriptor?, Held) = try Held.event()
            let step = rig.send(command, payload, [try #require(descriptor)], late: late)
            descriptor = nil
            return step.refused != nil && held.descriptor == nil
        }
        #expect(try isClosed(99, [0]))
        #expect(try isClosed(Command.deviceGetInfo.rawValue, DeviceInfo().encoded))
        #expect(try isClosed(Command.deviceReset.rawValue, []))
        #expect(try isClosed(Command.dmaMap.rawValue, [1, 2, 3]))
        let set = InterruptSet(flags: [.none, .trigger], index: .msix, count: 1)
        #expect(try isClosed(Command.deviceSetIRQs.rawValue, set.encoded))
        #expect(try isClosed(Command.version.rawValue, SessionRig.proposal))
        #expect(try isClosed(Command.deviceGetInfo.rawValue, DeviceInfo().encoded, late: true))
    }

    @Test func `VFU-H-10: descriptors behind the first byte belong to nobody`() throws {
        let rig = try SessionRig()
        let step = rig.send(Command.deviceReset.rawValue, late: true)
        #expect(step.refused?.id == .descriptors && rig.function.resets == 0)
    }

    @Test func `VFU-H-12, HI-E7: ancillary data that was cut is answered, and the end`() throws {
        let rig = try SessionRig()
        let header = MessageHeader(identifier: 5, command: 8, messageSize: 40).encoded
        let step = rig.session.accept(.truncated(descriptors: 3, header: header))
        #expect(step.closes && step.refused?.id == .truncated)
        #expect(step.reply.flatMap(MessageHeader.init)?.identifier == 5)
        let half = rig.session.accept(.truncated(descriptors: 0, header: [1, 2]))
        #expect(half.closes && half.reply == nil && half.refused?.id == .truncated)
    }

    @Test func `HI-E22, HI-E24: a message that never ends says which rule it broke`() throws {
        let rig = try SessionRig()
        #expect(rig.session.accept(.shortHeader(3)).refused?.id == .cutMessage)
        #expect(rig.session.accept(.shortPayload(3, of: 9)).refused?.id == .cutMessage)
        #expect(rig.session.accept(.stalled(3)).refused?.id == .stall)
        #expect(rig.session.accept(.unread(3)).refused?.id == .stall)
        #expect(rig.session.accept(.stalled(3)).closes)
    }

    @Test func `VFU-S-70, VFU-S-71, VFU-S-72, VFU-S-73, HI-E18: migration is refused by name`()
        throws
    {
        let rig = try SessionRig()
        for feature in [1, 2, 3, 6, 7, 8, 0xffff] as [UInt32] {
            for operation in [
                DeviceFeature.get, DeviceFeature.set, DeviceFeature.probe, 0,
                DeviceFeature.get | DeviceFeature.set, DeviceFeature.probe | DeviceFeature.get,
            ] {
                let request = DeviceFeature(argumentSize: 64, flags: feature | operation).encoded
                let step = rig.send(.deviceFeature, request + [UInt8](repeating: 0, count: 24))
                #expect(step.refused?.id == .feature && !step.closes)
                #expect(step.refused?.detail.hasPrefix("not supported") == true)
                #expect(step.reply.flatMap(MessageHeader.init)?.error == 22)
            }
        }
        let transfer = DeviceFeature(argumentSize: 8, flags: 16).encoded
        #expect(try rig.refusal(.migrationDataRead, transfer) == .init(.feature))
        #expect(try rig.refusal(.migrationDataWrite, transfer + [1, 2]) == .init(.feature))
        #expect(try rig.refusal(.migrationDataRead, [0xff, 0xff, 0xff, 0xff]) == .init(.feature))
        #expect(rig.function.resets == 0 && rig.function.writes.isEmpty)
    }

    @Test func `VFU-S-50, VFU-S-51, HI-E19: a reset keeps memory and eventfds, twice too`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 8192)
        #expect(try rig.map(file, at: 0x10000, length: 8192) == nil)
        let event = try EventFD()
        #expect(try rig.connect([event]) == nil)
        #expect(try rig.answer(.deviceReset).isEmpty)
        #expect(try rig.answer(.deviceReset).isEmpty)
        #expect(rig.function.resets == 2)
        #expect(rig.memory.covers(0x10000, 8192, .readWrite))
        rig.function.fire(0)
        #expect(event.drain() == 1)
    }
}
