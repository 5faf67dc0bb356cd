import Testing
import VirtioSpec

@Suite struct VirtualDeviceCommandTests {
    /// One of each command, with values whose bytes all differ.
    static let samples: [VirtualDeviceCommand] = [
        .capabilityGet,
        .create(type: DeviceType(0x0403_0201), attributes: [9, 8, 7, 6]),
        .destroy,
        .list(after: 0x0807_0605_0403_0201, maximum: 0x0c0b_0a09),
        .information,
        .deviceFeaturesGet,
        .driverFeaturesSet(FeatureBits(rawValue: 0x8877_6655_4433_2211)),
        .driverFeaturesGet,
        .statusSet([.acknowledge, .driver]),
        .statusGet,
        .generationGet,
        .configurationGet(offset: 0x0403_0201, size: 0x0807_0605),
        .configurationSet(offset: 0x0403_0201, bytes: [1, 2, 3]),
        .interruptInformation,
        .vectorSet(
            VectorRecord(
                vector: 0x0201,
                flags: .masked,
                messageData: 0x0605_0403,
                messageAddress: 0x1122_3344_5566_7788
            )
        ),
        .vectorGet(vector: 0x0201),
        .bindConfiguration(vector: 0xffff),
        .bindQueue(queue: 0x0201, vector: 0x0403),
        .queueInformation(queue: 0x0201),
        .queueSizeSet(queue: 0x0201, size: 0x0403),
        .queueAddressesSet(
            queue: 0x0201,
            QueueAddresses(descriptorArea: 0x11, driverArea: 0x22, deviceArea: 0x33)
        ),
        .queueEnable(queue: 0x0201, value: 1),
        .queueReset(queue: 0x0201),
        .queueKick(queue: 0x0201, notification: 0x0807_0605),
        .queueStateGet(queue: 0x0201),
        .queueStateSet(queue: 0x0201, QueueIndices(lastAvailable: 0x0403, lastUsed: 0x0605)),
        .mmuInformation,
        .map(MappingRecord(first: 0x1000, last: 0x1fff, target: 0x8000, flags: [.read, .write])),
        .unmap(first: 0x1000, last: 0x1fff),
        .unmapAll,
        .mappingQuery(address: 0x1234),
        .faultGet,
        .subscribe([AdminEventMask(.usedBuffer), AdminEventMask(.mmuFault)]),
    ]

    @Test func `every command there is has a sample here`() {
        #expect(Set(Self.samples.map(\.opcode)) == Set(VirtualDeviceOpcode.allCases))
    }

    @Test(arguments: samples)
    func `a command survives encoding and decoding`(_ command: VirtualDeviceCommand) throws {
        let decoded = try VirtualDeviceCommand(command.opcode, arguments: command.arguments)
        #expect(decoded == command)
    }

    @Test func `the header is id, class, command, little-endian`() throws {
        let bytes = VirtualDeviceCommand.queueKick(queue: 3, notification: 0)
            .bytes(for: 0x0807_0605_0403_0201)
        #expect(bytes.prefix(12) == [1, 2, 3, 4, 5, 6, 7, 8, 0x02, 0x01, 5, 0])
        let header = try #require(VirtualDeviceHeader(bytes))
        #expect(header.virtualDeviceID == 0x0807_0605_0403_0201)
        #expect(VirtualDeviceOpcode(header) == .queueKick)
    }

    @Test(arguments: 0..<12)
    func `AVQ-D-303: a run under 12 bytes holds no header`(_ count: Int) {
        #expect(VirtualDeviceHeader([UInt8](repeating: 0, count: count)) == nil)
    }

    @Test func `create: type at 12, attributes at 16`() {
        let bytes = VirtualDeviceCommand.create(type: .net, attributes: [7]).bytes(for: 0)
        #expect(bytes == [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7])
    }

    @Test func `map: first, last, target, flags at 0, 8, 16, 24`() {
        let command = VirtualDeviceCommand.map(
            MappingRecord(first: 1, last: 2, target: 3, flags: .write)
        )
        var expected = [UInt8](repeating: 0, count: 32)
        expected[0] = 1
        expected[8] = 2
        expected[16] = 3
        expected[24] = 2
        #expect(command.arguments == expected)
    }

    @Test func `vector: number, flags, data, address at 0, 2, 4, 8`() {
        let record = VectorRecord(vector: 1, flags: .masked, messageData: 3, messageAddress: 4)
        #expect(record.bytes == [1, 0, 1, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test func `queue addresses start at 8, indices at 4`() {
        let addresses = VirtualDeviceCommand.queueAddressesSet(
            queue: 1,
            QueueAddresses(descriptorArea: 2, driverArea: 3, deviceArea: 4)
        )
        #expect(addresses.arguments.count == 32)
        #expect([0, 8, 16, 24].map { addresses.arguments[$0] } == [1, 2, 3, 4])
        let indices = VirtualDeviceCommand.queueStateSet(
            queue: 1,
            QueueIndices(lastAvailable: 2, lastUsed: 3)
        )
        #expect(indices.arguments == [1, 0, 0, 0, 2, 0, 3, 0])
    }

    @Test(arguments: samples)
    func `AVQ-D-304: arguments without their reserved tail are complete, one byte less is not`(
        _ command: VirtualDeviceCommand
    ) throws {
        let needed = command.opcode.minimumArguments
        guard needed > 0, command.arguments.count <= 40 else { return }
        let variable: Set<VirtualDeviceOpcode> = [.create, .configurationSet]
        if !variable.contains(command.opcode) {
            let decoded = try VirtualDeviceCommand(
                command.opcode,
                arguments: Array(command.arguments.prefix(needed))
            )
            #expect(decoded == command)
        }
        #expect(throws: AdminError.shortBuffer(needed: 12 + needed)) {
            try VirtualDeviceCommand(
                command.opcode,
                arguments: Array(command.arguments.prefix(needed - 1))
            )
        }
    }

    @Test func `AVQ-D-304: a configuration write with fewer bytes than it says is short`() {
        var arguments = VirtualDeviceCommand.configurationSet(offset: 0, bytes: [1, 2, 3]).arguments
        arguments.removeLast()
        #expect(throws: AdminError.shortBuffer(needed: 12 + 8 + 3)) {
            try VirtualDeviceCommand(.configurationSet, arguments: arguments)
        }
    }

    @Test
    func `AVQ-D-304: a configuration write of the largest size that 32 bits can say is short`() {
        #expect(throws: AdminError.shortBuffer(needed: 12 + 8 + Int(UInt32.max))) {
            try VirtualDeviceCommand(
                .configurationSet,
                arguments: [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1]
            )
        }
    }

    @Test(arguments: samples)
    func `HI-F8, AVQ-D-304: reserved fields set and surplus bytes change nothing`(
        _ command: VirtualDeviceCommand
    ) throws {
        guard command.opcode != .create else { return }
        let surplus = command.arguments + [UInt8](repeating: 0xee, count: 9)
        #expect(try VirtualDeviceCommand(command.opcode, arguments: surplus) == command)
        let reserved: [VirtualDeviceOpcode: [Range<Int>]] = [
            .list: [12..<16], .vectorGet: [2..<8], .bindConfiguration: [2..<8],
            .bindQueue: [4..<8], .queueInformation: [2..<8], .queueSizeSet: [4..<8],
            .queueAddressesSet: [2..<8], .queueEnable: [4..<8], .queueReset: [2..<8],
            .queueKick: [2..<4], .queueStateGet: [2..<8], .queueStateSet: [2..<4],
            .map: [28..<32], .mappingQuery: [8..<16], .subscribe: [4..<8],
        ]
        var bytes = command.arguments
        for range in reserved[command.opcode] ?? [] {
            for index in range { bytes[index] = 0xff }
        }
        #expect(try VirtualDeviceCommand(command.opcode, arguments: bytes) == command)
    }

    @Test(arguments: [(1, 0), (6, 0), (0, 1), (2, 2), (2, 0x82), (0x105, 0), (0xffff, 0xffff)])
    func `AVQ-D-217: a class or command that is not served has no opcode`(
        _ commandClass: Int,
        _ command: Int
    ) {
        var header = VirtualDeviceHeader(virtualDeviceID: 0, .capabilityGet)
        header.commandClass = UInt16(commandClass)
        header.command = UInt16(command)
        #expect(VirtualDeviceOpcode(header) == nil)
    }

    @Test func `AVQ-D-301: the proposal's own numbers are as it gives them`() {
        let numbers: [(VirtualDeviceOpcode, UInt16, UInt16)] = [
            (.capabilityGet, 0, 0), (.create, 2, 0), (.destroy, 2, 1), (.deviceFeaturesGet, 3, 0),
            (.driverFeaturesSet, 3, 1), (.driverFeaturesGet, 3, 2), (.statusSet, 4, 0),
            (.statusGet, 4, 1), (.generationGet, 5, 0),
        ]
        for (opcode, commandClass, command) in numbers {
            #expect(opcode.commandClass == commandClass)
            #expect(opcode.command == command)
        }
        #expect(AdminCapabilities.virtualDevices.rawValue == 2)
    }

    @Test func `AVQ-D-216, AVQ-D-327: each class names the capability it depends on`() {
        let expected: [UInt16: AdminCapabilities] = [
            0: [], 3: .virtualDevices, 4: .virtualDevices, 5: .virtualDevices,
            0x100: .configuration, 0x101: .interrupts, 0x102: .virtqueues, 0x103: .deviceMMU,
            0x104: .events,
        ]
        for opcode in VirtualDeviceOpcode.allCases where opcode.commandClass != 2 {
            #expect(opcode.requiredCapabilities == expected[opcode.commandClass])
        }
        #expect(VirtualDeviceOpcode.create.requiredCapabilities == .virtualDevices)
        #expect(VirtualDeviceOpcode.list.requiredCapabilities.contains(.staticDevices))
    }
}
