import Testing
import VfioUser

@Suite struct VersionTests {
    private func payload(_ json: String, terminated: Bool = true) -> [UInt8] {
        [0, 0, 0, 0] + Array(json.utf8) + (terminated ? [0] : [])
    }

    private func isRefused(_ bytes: [UInt8]) -> Bool {
        do {
            _ = try Version(bytes)
            return false
        } catch {
            return true
        }
    }

    @Test func `VFU-S-04: what QEMU proposes is understood`() throws {
        let json = """
            {"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, \
            "max_data_xfer_size": 1048576, "migration": {"max_bitmap_size": 268435456, \
            "pgsize": 4096}, "write_multiple": true}}
            """
        let capabilities = try #require(try Version(payload(json)).capabilities)
        #expect(capabilities.messageDescriptors == 16)
        #expect(capabilities.transferSize == 1 << 20)
        #expect(capabilities.memoryRanges == 65535)
        #expect(capabilities.pageSizes == 4096)
        #expect(capabilities.writesMultiple == true)
        #expect(capabilities.hasTwinSocket == nil)
        #expect(capabilities.migrationPageSize == 4096)
        #expect(capabilities.migrationBitmapSize == 1 << 28)
    }

    @Test func `VFU-S-04: no JSON, an empty object and keys nobody knows are fine`() throws {
        #expect(try Version(payload("", terminated: false)).capabilities == nil)
        #expect(try Version(payload("{}")).capabilities == Capabilities())
        #expect(try Version(payload(#"{"capabilities":{}}"#)).capabilities == Capabilities())
        #expect(
            try Version(payload(#"{"a":1,"capabilities":{"b":[]}}"#)).capabilities == Capabilities()
        )
    }

    @Test(arguments: [
        "", "{", "[]", "1", "null x", #"{"capabilities":1}"#, #"{"capabilities":[]}"#,
        #"{"capabilities":{"max_msg_fds":"x"}}"#, #"{"capabilities":{"max_msg_fds":-1}}"#,
        #"{"capabilities":{"max_msg_fds":1025}}"#, #"{"capabilities":{"max_msg_fds":1e99}}"#,
        #"{"capabilities":{"max_msg_fds":1.5}}"#,
        #"{"capabilities":{"max_msg_fds":18446744073709551616}}"#,
        #"{"capabilities":{"max_data_xfer_size":0}}"#,
        #"{"capabilities":{"max_data_xfer_size":-5}}"#, #"{"capabilities":{"max_dma_maps":-1}}"#,
        #"{"capabilities":{"pgsizes":3}}"#, #"{"capabilities":{"write_multiple":"yes"}}"#,
        #"{"capabilities":{"twin_socket":true}}"#, #"{"capabilities":{"migration":7}}"#,
        #"{"capabilities":{"migration":{"pgsize":3}}}"#, "{\"capabilities\":{\"\u{0}\":1}}",
    ])
    func `HI-E3, VFU-S-04: capabilities that are none are refused`(_ json: String) {
        #expect(isRefused(payload(json)))
    }

    @Test func `HI-E3: JSON without its zero byte, cut, huge or deep is refused`() throws {
        #expect(isRefused(payload("{}", terminated: false)))
        #expect(isRefused(payload(#"{"capabilities":{}"#)))
        #expect(isRefused(payload(String(repeating: " ", count: 1 << 20) + "{}")))
        let deep = String(repeating: "[", count: 1000) + String(repeating: "]", count: 1000)
        #expect(isRefused(payload(#"{"x":"# + deep + "}")))
        #expect(isRefused([0, 0, 0, 0, 0xff, 0xfe, 0]))
        // Brackets in strings nest nothing.
        #expect(try Version(payload(#"{"x":"[[[[[[[[[[[[\"[["}"#)).capabilities == Capabilities())
    }

    @Test func `HI-E1, VFU-S-01: less than the version numbers is no VERSION`() {
        #expect(throws: Version.Problem.short) { try Version([0, 0, 0]) }
        #expect(throws: Version.Problem.short) { try Version([]) }
    }

    @Test func `VFU-S-05: the ordinary answer has 64 bytes of JSON`() throws {
        var capabilities = Capabilities()
        capabilities.messageDescriptors = 16
        capabilities.transferSize = 1 << 20
        let answer = Version(capabilities: capabilities)
        let json = #"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}"#
        #expect(answer.encoded == payload(json))
        #expect(MessageHeader.size + answer.encoded.count == 0x55)
        #expect(try Version(answer.encoded) == answer)
    }

    @Test func `VFU-C-02: every key comes back as it was written`() throws {
        var all = Capabilities()
        all.messageDescriptors = 8
        all.transferSize = 4096
        all.memoryRanges = 3
        all.pageSizes = 0x20_1000
        all.writesMultiple = false
        all.hasTwinSocket = true
        all.twinSocketIndex = 0
        all.migrationPageSize = 4096
        all.migrationBitmapSize = 1 << 28
        let version = Version(minor: 2, capabilities: all)
        #expect(try Version(version.encoded) == version)
        #expect(Capabilities.defaultMessageDescriptors == 1)
    }
}
