import GuestMemory
import HostSystem
import PCI
import Testing
import VfioUser

/// What QEMU 11.1's `vfio-user-pci` was seen to send, in its order; `tools/rig` has QEMU itself.
@Suite struct QEMUSequenceTests {
    private static let megabyte: UInt64 = 1 << 20
    private let ram = 16 * QEMUSequenceTests.megabyte

    /// A machine: its memory, and the client that QEMU is.
    private struct Machine {
        let rig: SessionRig
        let memory: MemoryFile
        let line: EventFD

        init(_ size: UInt64) throws {
            rig = try SessionRig(proposal: nil)
            memory = try MemoryFile(name: "machine", size: Int(size))
            line = try EventFD()
        }

        /// A reply that is no error.
        @discardableResult
        func ask(_ command: Command, _ payload: [UInt8] = [], _ files: [FileDescriptor] = [])
            throws -> [UInt8]
        {
            try rig.answer(command, payload, files)
        }

        func map(_ address: UInt64, _ size: UInt64, _ flags: DMAMap.Flags = [.readable, .writable])
            throws
        {
            let request = DMAMap(flags: flags, offset: address, address: address, length: size)
            try ask(.dmaMap, request.encoded, [memory.descriptor])
        }

        func mapWithoutFile(_ address: UInt64, _ size: UInt64, _ flags: DMAMap.Flags) throws {
            try ask(.dmaMap, DMAMap(flags: flags, address: address, length: size).encoded)
        }

        func unmap(_ address: UInt64, _ size: UInt64) throws {
            let request = DMAUnmap(address: address, length: size).encoded
            try #require(try ask(.dmaUnmap, request) == request)
        }

        func read(_ offset: UInt64, _ count: UInt32, region: UInt32 = 7) throws -> [UInt8] {
            let access = RegionAccess(offset: offset, region: region, count: count)
            return Array(try ask(.regionRead, access.encoded).dropFirst(RegionAccess.size))
        }

        func write(_ offset: UInt64, _ bytes: [UInt8], region: UInt32 = 7) throws {
            let access = RegionAccess(offset: offset, region: region, count: UInt32(bytes.count))
            try #require(try ask(.regionWrite, access.encoded + bytes) == access.encoded)
        }

        func interrupts(
            _ flags: UInt32,
            _ index: InterruptIndex,
            count: UInt32,
            _ files: [FileDescriptor] = []
        ) throws {
            let set = InterruptSet(flags: .init(rawValue: flags), index: index, count: count)
            try #require(try ask(.deviceSetIRQs, set.encoded, files).isEmpty)
        }

        func region(_ index: UInt32) throws -> (RegionInfo, [Range<UInt64>], [FileDescriptor]) {
            var request = RegionInfo(index: index)
            while true {
                let step = rig.send(.deviceGetRegionInfo, request.encoded)
                let reply = Array(try #require(step.reply).dropFirst(MessageHeader.size))
                let info = try #require(RegionInfo(reply))
                if info.argumentSize > request.argumentSize {
                    request.argumentSize = info.argumentSize
                    continue
                }
                let areas = SparseAreas(reply, at: Int(info.capabilityOffset))?.areas ?? []
                return (info, areas, step.descriptors)
            }
        }

        /// From the connection to the device in the machine.
        func realize(_ ram: UInt64) throws {
            let json = """
                {"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, \
                "max_data_xfer_size": 1048576, "migration": {"max_bitmap_size": 268435456, \
                "pgsize": 4096}, "write_multiple": true}}
                """
            let proposal = [0, 0, 0, 0] + Array(json.utf8) + [0]
            try #require(try ask(.version, proposal).count <= proposal.count)
            try map(0, ram)
            try mapWithoutFile(0xfffc_0000, 0x40000, .readable)
            let info = try #require(DeviceInfo(try ask(.deviceGetInfo, DeviceInfo().encoded)))
            try #require(info.flags.contains(.pci) && info.regionCount <= 100)
            for index in [0, 1, 2, 3, 4, 5, 7] as [UInt32] {
                let (region, areas, files) = try region(index)
                try #require(files.count == (region.flags.contains(.mappable) ? 1 : 0))
                try #require(areas.allSatisfy { $0.upperBound <= region.length })
            }
            try ask(.deviceGetIRQInfo, InterruptInfo(index: 3).encoded)
            try #require(try read(0, 256).count == 256)
            let rom = try read(0x30, 4)
            try write(0x30, [0, 0xf8, 0xff, 0xff])
            try #require(try read(0x30, 4) == [0, 0, 0, 0])
            try write(0x30, rom)
            for offset in [0x10, 0x18, 0x20] as [UInt64] { _ = try read(offset, 4) }
            let control = try read(0x42, 2)
            let vectors = try ask(.deviceGetIRQInfo, InterruptInfo(index: 2).encoded)
            try #require(InterruptInfo(vectors)?.count == UInt32(control[0]) + 1)
            _ = try read(0x3d, 1)
            try interrupts(0x24, .intx, count: 1, [line.descriptor])
            try interrupts(0x24, .error, count: 1, [line.descriptor])
        }

        /// A reset of the machine.
        func reset() throws {
            try interrupts(0x21, .intx, count: 0)
            var command = try read(4, 2)
            command[0] &= ~7
            try write(4, command)
            try ask(.deviceReset)
            _ = try read(0x3d, 1)
            try interrupts(0x24, .intx, count: 1, [line.descriptor])
            for offset in stride(from: 0x10 as UInt64, to: 0x28, by: 4) {
                try write(offset, [0, 0, 0, 0])
            }
        }
    }

    @Test func `VFU-Q-01: the messages of realize are all answered`() throws {
        let machine = try Machine(ram)
        try machine.rig.function.shareWindow([0..<0x4000, 0x8000..<0x10000])
        try machine.realize(ram)
        #expect(machine.rig.memory.covers(0, ram, .readWrite))
        #expect(machine.rig.session.silentFailures == 0 && machine.line.drain() == 0)
    }

    @Test func `VFU-Q-02: the reset sequence works again and again`() throws {
        let machine = try Machine(ram)
        try machine.realize(ram)
        for _ in 0..<10 { try machine.reset() }
        #expect(machine.rig.function.resets == 10)
        #expect(machine.rig.memory.covers(0, ram, .readWrite))
    }

    @Test func `VFU-Q-03: MSI-X on, unmasked one by one, off, and INTx again`() throws {
        let machine = try Machine(ram)
        try machine.realize(ram)
        try machine.write(4, [6, 0])
        for round in 0..<3 {
            try machine.write(0x42, [3, 0x80])
            try machine.interrupts(0x21, .intx, count: 0)
            try machine.interrupts(0x24, .msix, count: 1)
            machine.rig.function.fire(3)
            var events: [EventFD] = []
            for vector in 0..<4 as Range<UInt32> {
                events.append(try EventFD())
                try machine.interrupts(0x21, .msix, count: 0)
                try machine.interrupts(0x24, .msix, count: vector + 1, events.map(\.descriptor))
            }
            #expect(events.map { $0.drain() } == [0, 0, 0, 1], "round \(round)")
            for vector in 0..<4 { machine.rig.function.fire(vector) }
            #expect(events.map { $0.drain() } == [1, 1, 1, 1])
            try machine.write(0x42, [3, 0])
            try machine.interrupts(0x21, .msix, count: 0)
            _ = try machine.read(0x3d, 1)
            try machine.interrupts(0x24, .intx, count: 1, [machine.line.descriptor])
            for vector in 0..<4 { machine.rig.function.fire(vector) }
            #expect(events.map { $0.drain() } == [0, 0, 0, 0])
        }
    }

    @Test func `VFU-Q-04: the device's own BARs are announced, taken back, moved`() throws {
        let machine = try Machine(ram)
        try machine.realize(ram)
        let changes = machine.rig.function.memoryChanges
        for base in [0xfe80_0000, 0x80_0000_0000, 0xfe80_0000] as [UInt64] {
            try machine.write(4, [6, 0])
            try machine.mapWithoutFile(base, 0x4000, [.readable, .writable])
            try machine.mapWithoutFile(base + 0x8000, 0x8000, [.readable, .writable])
            try machine.write(4, [0, 0])
            try machine.unmap(base, 0x4000)
            try machine.unmap(base + 0x8000, 0x8000)
        }
        #expect(machine.rig.function.memoryChanges == changes)
    }

    @Test func `VFU-Q-05, VFU-Q-06: two BARs have two files, each with its areas`() throws {
        let machine = try Machine(ram)
        let function = machine.rig.function
        let second = try MemoryFile(name: "second", size: 0x20000)
        try function.shareWindow([0..<0x4000])
        function.secondFile = WindowFile(
            file: second.descriptor,
            identity: try second.descriptor.status().identity,
            offset: 0x10000,
            areas: [0..<0x10000]
        )
        try machine.realize(ram)
        let (_, firstAreas, firstFiles) = try machine.region(2)
        let (info, secondAreas, secondFiles) = try machine.region(4)
        #expect(firstAreas == [0..<0x4000] && secondAreas == [0..<0x10000])
        #expect(info.offset == 0x10000)
        let first = try #require(firstFiles.first).status().identity
        let other = try #require(secondFiles.first).status().identity
        #expect(first != other)
        let mapping = try Mapping.file(
            try #require(secondFiles.first),
            offset: info.offset + secondAreas[0].lowerBound,
            length: 0x10000
        )
        unsafe mapping.address.storeBytes(of: 0x42, as: UInt8.self)
        let own = try second.map()
        #expect(unsafe own.address.load(fromByteOffset: 0x10000, as: UInt8.self) == 0x42)
    }

    @Test func `VFU-Q-07: posted writes and bundles take effect before the read behind them`()
        throws
    {
        let machine = try Machine(ram)
        try machine.realize(ram)
        func access(_ count: UInt32) -> RegionAccess {
            RegionAccess(offset: 0x16, region: 0, count: count)
        }
        var number: UInt32 = 0
        func next() -> [UInt8] {
            number += 1
            return AccessWidth.word.bytes(of: number)
        }
        for _ in 0..<1300 {
            let payload = access(2).encoded + next()
            let step = machine.rig.send(.regionWrite, payload, flags: .noReply)
            #expect(step.reply == nil && step.refused == nil)
        }
        for _ in 0..<8 {
            let entries = (0..<200).map { _ in MultiWrite.Entry(access: access(2), data: next()) }
            let bundle = MultiWrite(entries: entries).encoded
            let step = machine.rig.send(.regionWriteMulti, bundle, flags: .noReply)
            #expect(step.reply == nil && step.refused == nil)
        }
        #expect(try machine.read(0x16, 2, region: 0) == AccessWidth.word.bytes(of: number))
        let written = machine.rig.function.writes.filter { $0.bar == 0 && $0.offset == 0x16 }
        #expect(written.map(\.value) == Array(1...number))
    }

    @Test func `VFU-Q-08: memory in pieces, as firmware opens and closes its shadow`() throws {
        let machine = try Machine(ram)
        try machine.realize(ram)
        let own = try machine.memory.map()
        unsafe own.address.storeBytes(of: 0x77, toByteOffset: 0xd7fff, as: UInt8.self)
        try machine.unmap(0, ram)
        #expect(machine.rig.memory.all.isEmpty)
        try machine.map(0, 0xc0000)
        try machine.map(0xc0000, 0x20000, .readable)
        try machine.map(0xe0000, 0x20000, .readable)
        try machine.map(0x100000, ram - 0x100000)
        #expect(machine.rig.memory.read(0xd7fff, 1) == [0x77])
        #expect(!machine.rig.memory.write([1], at: 0xd7fff))
        for (address, size) in [
            (0, 0xc0000), (0xc0000, 0x20000), (0xe0000, 0x20000), (0x100000, ram - 0x100000),
        ] as [(UInt64, UInt64)] {
            try machine.unmap(address, size)
        }
        try machine.map(0, 0xd8000)
        try machine.map(0xd8000, 0x18000, .readable)
        try machine.map(0xf0000, ram - 0xf0000)
        #expect(machine.rig.memory.write([1, 2, 3], at: 0xd7ffd))
        #expect(!machine.rig.memory.write([1, 2], at: 0xd7fff))
        #expect(machine.rig.memory.write([9, 8], at: 0xfffff))
        #expect(unsafe own.address.load(fromByteOffset: 0x100000, as: UInt8.self) == 8)
        for (address, size) in [(0, 0xd8000), (0xd8000, 0x18000), (0xf0000, ram - 0xf0000)]
            as [(UInt64, UInt64)]
        {
            try machine.unmap(address, size)
        }
        try machine.map(0, ram)
        #expect(machine.rig.memory.all.count == 1)
    }

    @Test func `VFU-Q-08: an emulated IOMMU takes all back and gives single pages`() throws {
        let machine = try Machine(ram)
        try machine.realize(ram)
        try machine.unmap(0, ram)
        try machine.unmap(0xfffc_0000, 0x40000)
        var at: UInt64 = 0
        for shift in 12..<47 as Range<UInt64> {
            try machine.unmap(at, 1 << shift)
            at += 1 << shift
        }
        for page in 0..<16 as Range<UInt64> {
            let request = DMAMap(
                flags: [.readable, .writable],
                offset: 0x20_0000 + (page ^ 5) << 12,
                address: 0xffff_0000 + page << 12,
                length: 4096
            )
            try machine.ask(.dmaMap, request.encoded, [machine.memory.descriptor])
        }
        let bytes = (0..<0x10000).map { UInt8(truncatingIfNeeded: $0 >> 12) }
        #expect(machine.rig.memory.write(bytes, at: 0xffff_0000))
        let own = try machine.memory.map()
        for page in 0..<16 {
            let byte = unsafe own.address.load(
                fromByteOffset: 0x20_0000 + page << 12,
                as: UInt8.self
            )
            #expect(byte == UInt8(page ^ 5))
        }
        try machine.unmap(0xffff_0000, 0x10000)
        #expect(machine.rig.memory.all.isEmpty)
    }

    @Test func `VFU-Q-09: a reset of the machine leaves no old memory in use`() throws {
        let machine = try Machine(ram)
        try machine.realize(ram)
        // The device takes its table anew whenever it is told, as one that works on rings does.
        var held = machine.rig.memory
        machine.rig.function.onMemoryChange = { [unowned rig = machine.rig] in held = rig.memory }
        for _ in 0..<5 {
            #expect(held.write([1], at: 0x1000))
            try machine.reset()
            try machine.unmap(0, ram)
            #expect(!held.write([1], at: 0x1000))
            try machine.map(0, 0xc0000)
            try machine.map(0xc0000, ram - 0xc0000)
        }
    }

    @Test func `VFU-Q-10: the next machine is served after one that was killed`() throws {
        let rig = try ServerRig()
        for _ in 0..<5 {
            let memory = try MemoryFile(name: "machine", size: 1 << 20)
            var caller: Caller? = try rig.negotiated()
            let map = DMAMap(flags: [.readable, .writable], address: 0, length: 1 << 20).encoded
            #expect(try caller?.ask(.dmaMap, map, [memory.descriptor]).isEmpty == true)
            #expect(rig.server.memory.covers(0, 1 << 20, .readWrite))
            // Killed while it waits for a reply.
            try caller?.say(message(.deviceReset, id: 9))
            caller = nil
            try rig.turns()
            #expect(!rig.server.isConnected && rig.server.memory.all.isEmpty)
        }
        #expect(rig.function.farewells == 5)
    }

    @Test func `VFU-Q-11: a machine with private memory is refused by name`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let map = DMAMap(flags: [.readable, .writable], address: 0, length: ram).encoded
        #expect(try caller.ask(.dmaMap, map).isEmpty)
        // A device that starts asks for the memory its rings are in.
        #expect(rig.server.memory.all.isEmpty)
        let deadline = Deadline(milliseconds: 5000)
        while rig.server.refusals.isEmpty, !deadline.hasPassed {
            try rig.turns(1, milliseconds: 20)
        }
        #expect(rig.server.refusals[.memoryNotShared] == 1)
        #expect(try caller.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-Q-12: what was mapped stays readable when the server is gone`() throws {
        var rig: ServerRig? = try ServerRig()
        try rig?.function.shareWindow([0..<0x4000])
        let caller = try #require(try rig?.negotiated())
        let request = RegionInfo(argumentSize: 96, index: 2).encoded
        #expect(try caller.ask(.deviceGetRegionInfo, request).count == 64)
        let file = try #require(caller.descriptors.first)
        let mapping = try Mapping.file(file, offset: 0, length: 0x4000)
        rig?.function.writeRegister(2, 0x123, .byte, 0x5a)
        let socket = caller.socket
        rig = nil
        #expect(unsafe mapping.address.load(fromByteOffset: 0x123, as: UInt8.self) == 0x5a)
        // And the client sees the end at once, not after a time-out.
        #expect(try socket.receive(limit: 1)?.bytes.isEmpty == true)
    }
}
