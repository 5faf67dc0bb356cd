import HostSystem
import Testing
import VfioUser

@Suite struct SessionNegotiationTests {
    private func version(_ json: String, major: UInt16 = 0, minor: UInt16 = 0) -> [UInt8] {
        Version(major: major, minor: minor, capabilities: nil).encoded + Array(json.utf8) + [0]
    }

    private func fails(
        _ payload: [UInt8],
        command: UInt16 = 1,
        flags: MessageHeader.Flags = [],
        _ descriptors: [FileDescriptor] = []
    ) throws -> FaultID? {
        let rig = try SessionRig(proposal: nil)
        let step = rig.send(command, payload, descriptors, flags: flags)
        guard let refused = step.refused else { return nil }
        #expect(step.closes && rig.session.negotiation == nil)
        if !flags.contains(.noReply) {
            #expect(step.reply.flatMap(MessageHeader.init)?.error == 22)
        }
        return refused.id
    }

    private func answer(to payload: [UInt8]) throws -> Version {
        let rig = try SessionRig(proposal: nil)
        let reply = try rig.answer(.version, payload)
        #expect(reply.count <= payload.count)
        return try Version(reply)
    }

    @Test func `VFU-S-01, HI-E1: the first message is VERSION or the last`() throws {
        #expect(try fails(DeviceInfo().encoded, command: 4) == .negotiate)
        #expect(try fails([], command: 13) == .negotiate)
        #expect(try fails([], command: 99) == .negotiate)
        #expect(try fails([]) == .negotiate)
        #expect(try fails([0, 0, 0]) == .negotiate)
        #expect(try fails(SessionRig.proposal, flags: .reply) == .negotiate)
        #expect(try fails(SessionRig.proposal, flags: .error) == .negotiate)
        #expect(try fails(SessionRig.proposal, flags: .init(rawValue: 1 << 9)) == .negotiate)
        #expect(try fails(DeviceInfo().encoded, command: 4, flags: .noReply) == .negotiate)
        #expect(try fails(SessionRig.proposal, [try EventFD().descriptor]) == .negotiate)
    }

    @Test func `VFU-S-02, HI-E2: another major version is the end`() throws {
        #expect(try fails(version("{}", major: 1)) == .negotiate)
        #expect(try fails(version("{}", major: 0xffff)) == .negotiate)
    }

    @Test func `VFU-S-03, HI-E2: the minor version is ours, and never above theirs`() throws {
        for minor: UInt16 in [0, 1, 2, 0xffff] {
            let answer = try answer(to: version(#"{"capabilities":{}}"#, minor: minor))
            #expect(answer.major == 0 && answer.minor <= minor)
        }
    }

    @Test func `VFU-S-04, HI-E3: capabilities that are none are the end`() throws {
        for json in [
            "", "{", "[1]", #"{"capabilities":{"max_msg_fds":-1}}"#, #"{"capabilities":3}"#,
        ] {
            #expect(try fails(version(json)) == .json)
        }
        #expect(try fails(Array(version("{}").dropLast())) == .json)
        #expect(try fails(version(String(repeating: " ", count: 1 << 20))) == .json)
        let deep = String(repeating: "[", count: 500_000)
        #expect(try fails(version(deep)) == .json)
    }

    @Test func `VFU-S-05: the answer fits into the question`() throws {
        let full = try answer(to: SessionRig.proposal)
        #expect(full.capabilities?.messageDescriptors == 16)
        #expect(full.capabilities?.transferSize == 1 << 20)
        #expect(full.capabilities?.writesMultiple == true)
        let lonely = #"{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576}}"#
        #expect(try answer(to: version(lonely)).capabilities?.transferSize == nil)
        #expect(try answer(to: version(lonely + " ")).capabilities?.transferSize == 1 << 20)
        #expect(try answer(to: version(#"{"capabilities":{"pgsizes":4096}}"#)).capabilities != nil)
        #expect(try answer(to: version(#"{"capabilities":{}}"#)).capabilities == Capabilities())
        #expect(try answer(to: version("{}")).capabilities == Capabilities())
        #expect(try answer(to: [0, 0, 0, 0]).capabilities == nil)
    }

    @Test func `VFU-S-44: bundles are offered to whoever offers them`() throws {
        let without =
            #"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"x":1234567}}"#
        #expect(try answer(to: version(without)).capabilities?.writesMultiple == nil)
    }

    @Test func `VFU-S-06: a second VERSION is refused, and nothing ends`() throws {
        let rig = try SessionRig()
        let step = rig.send(.version, SessionRig.proposal)
        #expect(step.refused?.id == .command && !step.closes)
        #expect(try rig.answer(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-S-07: no second socket is handed out, asked for or not`() throws {
        var capabilities = Capabilities()
        capabilities.hasTwinSocket = true
        capabilities.messageDescriptors = 16
        capabilities.transferSize = 1 << 20
        let rig = try SessionRig(proposal: nil)
        let step = rig.send(.version, Version(capabilities: capabilities).encoded)
        let reply = try Version(Array(try #require(step.reply).dropFirst(MessageHeader.size)))
        #expect(reply.capabilities?.hasTwinSocket == nil && step.descriptors.isEmpty)
    }

    @Test func `VFU-S-45: the client's limits are kept, its silence means the protocol's`() throws {
        let rig = try SessionRig(proposal: nil)
        _ = rig.send(.version, version(#"{"capabilities":{"max_data_xfer_size":4096}}"#))
        #expect(rig.session.negotiation?.transferSize == 4096)
        #expect(rig.session.negotiation?.messageDescriptors == 1)
        let other = try SessionRig(proposal: nil)
        _ = other.send(.version, version(#"{"capabilities":{"max_data_xfer_size":99999999}}"#))
        #expect(other.session.negotiation?.transferSize == 1 << 20)
    }
}
