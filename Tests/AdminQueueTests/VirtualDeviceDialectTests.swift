import Testing
import VirtioSpec

@testable import AdminQueue

@Suite struct VirtualDeviceDialectTests {
    private let rig = DialectRig()

    @Test func `AVQ-D-202, AVQ-D-213: CAP_GET needs no argument and gives a 64-bit mask`() {
        let answer = rig.raw([UInt8](repeating: 0, count: 12))
        #expect(answer == [0, 2, 0, 0, 0, 0x7f, 0, 0, 0])
    }

    @Test func `AVQ-D-202: a device that offers nothing else still answers the capability class`() {
        let bare = DialectRig(capabilities: [])
        #expect(bare.raw([UInt8](repeating: 0, count: 12)) == [UInt8](repeating: 0, count: 9))
    }

    @Test(arguments: [1, 2, 0x1_0000_0000, .max] as [UInt64])
    func `AVQ-D-203, HI-F60: the capability class fails for any id but 0`(_ id: UInt64) {
        _ = rig.create()
        rig.fail(.capabilityGet, for: id, .invalidMember)
    }

    @Test(arguments: [1, 2, .max] as [UInt64])
    func `AVQ-D-204, HI-F61: creating fails for any id but 0`(_ id: UInt64) {
        _ = rig.create()
        rig.fail(.create(type: EchoDevice.type, attributes: []), for: id, .invalidMember)
    }

    @Test func `AVQ-D-205, HI-F61: destroying id 0 fails`() {
        _ = rig.create()
        rig.fail(.destroy, for: 0, .invalidMember)
    }

    @Test(arguments: VirtualDeviceOpcode.allCases.filter { !$0.isForManagementDevice })
    func `AVQ-D-207, AVQ-D-210, AVQ-D-211, HI-F65: commands for a virtual device fail for id 0`(
        _ opcode: VirtualDeviceOpcode
    ) {
        _ = rig.create()
        rig.fail(
            bytes: VirtualDeviceHeader(virtualDeviceID: 0, opcode).bytes
                + [UInt8](repeating: 1, count: 40),
            .invalidMember
        )
    }

    @Test(arguments: VirtualDeviceOpcode.allCases.filter { !$0.isForManagementDevice })
    func `AVQ-D-217, HI-F64: commands for an id that does not live fail`(
        _ opcode: VirtualDeviceOpcode
    ) {
        let gone = rig.create()
        _ = rig.create()
        rig.succeed(.destroy, for: gone)
        for id in [gone, 77, .max] {
            rig.fail(
                bytes: VirtualDeviceHeader(virtualDeviceID: id, opcode).bytes
                    + [UInt8](repeating: 0, count: 40),
                .noSuchDevice
            )
        }
    }

    @Test(
        arguments: [(1, 0), (6, 0), (0, 1), (2, 2), (3, 3), (4, 2), (5, 1), (0x105, 0), (0xff, 9)]
            as [(UInt16, UInt16)]
    )
    func `AVQ-D-217: unknown classes and commands fail for any id`(
        _ commandClass: UInt16,
        _ command: UInt16
    ) {
        let id = rig.create()
        for id in [0, id, 99] {
            var header = VirtualDeviceHeader(virtualDeviceID: id, .capabilityGet)
            header.commandClass = commandClass
            header.command = command
            rig.fail(bytes: header.bytes, .invalidOpcode)
        }
    }

    @Test(arguments: VirtualDeviceOpcode.allCases.filter { $0 != .capabilityGet })
    func `AVQ-D-216, AVQ-D-327: a class whose capability is not offered fails`(
        _ opcode: VirtualDeviceOpcode
    ) {
        for capability in (0..<64).map({ AdminCapabilities(rawValue: 1 << UInt64($0)) })
        where opcode.requiredCapabilities.contains(capability) {
            let rig = DialectRig(
                capabilities: AdminCapabilities.all.subtracting(capability)
            )
            let id: UInt64 = opcode.isForManagementDevice ? 0 : 1
            rig.fail(
                bytes: VirtualDeviceHeader(virtualDeviceID: id, opcode).bytes
                    + [UInt8](repeating: 0, count: 40),
                .invalidOpcode
            )
        }
    }

    @Test func `AVQ-D-212, AVQ-D-301: the acknowledgement is 0 or 1 and the result starts at 1`() {
        let id = rig.create()
        #expect(rig.raw(VirtualDeviceCommand.statusGet.bytes(for: id)) == [0, 0])
        #expect(rig.raw(VirtualDeviceCommand.statusGet.bytes(for: 0)).first == 1)
        #expect(rig.raw(VirtualDeviceCommand.statusSet(.acknowledge).bytes(for: id)) == [0])
        #expect(rig.raw(VirtualDeviceCommand.statusGet.bytes(for: id)) == [0, 1])
    }

    @Test func `AVQ-D-302: a failed command carries the error record, cut to the room`() {
        let bytes = VirtualDeviceCommand.statusGet.bytes(for: 9)
        let whole = rig.raw(bytes)
        #expect(whole == [1, 6, 0, 0, 1, 0, 0, 0, 0])
        for room in 1...9 {
            #expect(rig.raw(bytes, room: room) == Array(whole.prefix(room)))
        }
    }

    @Test func `AVQ-D-302: without the capability a failed command is one byte`() {
        let bare = DialectRig(capabilities: .virtualDevices)
        #expect(bare.raw(VirtualDeviceCommand.statusGet.bytes(for: 9)) == [1])
    }

    @Test(arguments: 0..<12)
    func `AVQ-D-303: a readable part under 12 bytes is a short buffer`(_ count: Int) {
        rig.fail(bytes: [UInt8](repeating: 2, count: count), .shortBuffer, detail: 12)
    }

    @Test func `AVQ-D-303, HI-F3, HI-F70: without a writable byte nothing is executed`() {
        let id = rig.create()
        let before = rig.state
        let commands: [(VirtualDeviceCommand, UInt64)] = [
            (.create(type: EchoDevice.type, attributes: []), 0), (.destroy, id),
            (.statusSet(.acknowledge), id), (.subscribe(.all), 0), (.unmapAll, id),
        ]
        for (command, id) in commands {
            #expect(rig.raw(command.bytes(for: id), room: 0).isEmpty)
        }
        #expect(rig.state == before)
    }

    @Test(arguments: 1..<9)
    func `AVQ-D-304, HI-F70: without room for the id nothing is created`(_ room: Int) {
        let before = rig.state
        let bytes = VirtualDeviceCommand.create(type: EchoDevice.type, attributes: []).bytes(for: 0)
        let answer = rig.raw(bytes, room: room)
        #expect(answer == Array([1, 22, 0, 0x0c, 1, 9, 0, 0, 0].prefix(room)))
        #expect(rig.state == before)
    }

    @Test(arguments: 1..<9)
    func `AVQ-D-304, HI-F70: without room for the count nothing is listed`(_ room: Int) {
        let bytes = VirtualDeviceCommand.list(after: 0, maximum: 4).bytes(for: 0)
        #expect(rig.raw(bytes, room: room).first == 1)
        #expect(rig.raw(bytes, room: 9).first == 0)
    }

    @Test func `AVQ-D-304: a small room cuts the result`() {
        let id = rig.create()
        let whole = rig.raw(VirtualDeviceCommand.information.bytes(for: id))
        #expect(whole.count == 25)
        for room in 1..<25 {
            let cut = rig.raw(VirtualDeviceCommand.information.bytes(for: id), room: room)
            #expect(cut == Array(whole.prefix(room)))
        }
    }

    @Test(arguments: VirtualDeviceCommandSamples.all)
    func `AVQ-D-304, AVQ-D-305: missing argument bytes fail and change nothing`(
        _ command: VirtualDeviceCommand
    ) {
        let id = command.opcode.isForManagementDevice ? 0 : rig.create()
        let needed = command.opcode.minimumArguments
        for count in 0..<needed {
            rig.fail(
                bytes: Array(command.bytes(for: id).prefix(12 + count)),
                .shortBuffer,
                detail: UInt32(12 + needed)
            )
        }
    }

    @Test func `HI-F1: zeros of any length are a question or a refusal`() {
        _ = rig.create()
        let before = rig.state
        for count in 0..<200 {
            for room in [0, 1, 8, 9, 64] {
                let answer = rig.raw([UInt8](repeating: 0, count: count), room: room)
                #expect(answer.first == (room == 0 ? nil : count < 12 ? 1 : 0))
            }
        }
        #expect(rig.state == before)
    }

    @Test func `HI-F2: commands of the standard's dialect have no effect here`() {
        _ = rig.create()
        let before = rig.state
        for opcode in UInt16(0)...0x12 {
            for group in UInt16(0)...1 {
                for member in [0, 1, 2, .max] as [UInt64] {
                    var writer = WireWriter()
                    writer.integer(opcode)
                    writer.integer(group)
                    writer.zeros(12)
                    writer.integer(member)
                    writer.append([UInt8](repeating: 1, count: 16))
                    let acknowledgement = rig.raw(writer.bytes).first
                    #expect(acknowledgement == (opcode == 0 && group == 0 ? 0 : 1))
                }
            }
        }
        #expect(rig.state == before)
    }

    @Test func `HI-F2: commands of the class dialect have no effect here`() {
        _ = rig.create()
        let before = rig.state
        for commandClass in UInt8.min...UInt8.max {
            for command in UInt8(0)...8 {
                for length in [0, 2, 8, 16, 40] {
                    let data = [UInt8](repeating: 0, count: length)
                    let answer = rig.raw([commandClass, command] + data)
                    #expect(
                        answer.first
                            == (commandClass == 0 && command == 0 && length > 9 ? 0 : 1)
                    )
                }
            }
        }
        #expect(rig.state == before)
    }

    @Test func `AVQ-D-305: random bytes never trap, and what fails changes nothing`() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<4 { _ = rig.create() }
        for _ in 0..<20_000 {
            var bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
                UInt8.random(in: .min ... .max, using: &random)
            }
            // Mostly near-misses: a real header in front of random arguments.
            if Bool.random(using: &random),
                let opcode = VirtualDeviceOpcode.allCases.randomElement(),
                opcode != .destroy
            {
                let id = opcode.isForManagementDevice ? 0 : UInt64.random(in: 0...5, using: &random)
                bytes = VirtualDeviceHeader(virtualDeviceID: id, opcode).bytes + bytes
            }
            let before = rig.state
            let answer = rig.raw(bytes, room: Int.random(in: 0...64, using: &random))
            if answer.first != 0 { #expect(rig.state == before) }
        }
    }
}

/// One command of each kind.
enum VirtualDeviceCommandSamples {
    static let all: [VirtualDeviceCommand] = VirtualDeviceOpcode.allCases.compactMap {
        try? VirtualDeviceCommand($0, arguments: [UInt8](repeating: 0, count: 40))
    }
}
