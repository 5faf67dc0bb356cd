internal import FoundationEssentials

/// VERSION, both ways: a version, and what its sender can take.
public struct Version: Sendable, Equatable {
    /// Bytes before the capabilities.
    public static let fixedSize = 4
    /// Most bytes of capabilities that are looked at (HI-E3).
    public static let capabilitiesLimit = 4096
    /// Deepest nesting of objects and arrays that is looked at (HI-E3).
    public static let depthLimit = 8

    /// Why a payload is no VERSION.
    public enum Problem: Error, Equatable, Sendable {
        /// Fewer than 4 bytes.
        case short
        /// The capabilities cannot be used; the reason in words.
        case capabilities(String)
    }

    /// 0 is the only one there is.
    public var major: UInt16
    /// Smaller numbers are understood by those who know larger ones.
    public var minor: UInt16
    /// `nil` when the message had no JSON at all.
    public var capabilities: Capabilities?

    /// Sets all fields.
    public init(major: UInt16 = 0, minor: UInt16 = 0, capabilities: Capabilities?) {
        self.major = major
        self.minor = minor
        self.capabilities = capabilities
    }

    /// Reads a payload.
    public init(_ bytes: [UInt8]) throws(Problem) {
        guard let major = bytes.field(UInt16.self, at: 0),
            let minor = bytes.field(UInt16.self, at: 2)
        else { throw .short }
        self.major = major
        self.minor = minor
        let text = bytes.dropFirst(Self.fixedSize)
        capabilities = text.isEmpty ? nil : try Capabilities(terminated: text)
    }

    /// The payload.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(major)
        bytes.appendField(minor)
        if let capabilities { bytes += capabilities.encoded }
        return bytes
    }
}

/// The capabilities in a VERSION message: what its sender can receive. Keys that were absent are
/// `nil`; the protocol's defaults are properties of their own.
public struct Capabilities: Sendable, Equatable {
    /// Most descriptors in one message.
    public var messageDescriptors: Int?
    /// Largest count of a region or DMA access, in bytes.
    public var transferSize: Int?
    /// Most DMA ranges at one time.
    public var memoryRanges: Int?
    /// Page sizes that DMA ranges may have, or-ed.
    public var pageSizes: Int?
    /// A second socket for the server's commands: a client offers to use one, a server gives it.
    public var hasTwinSocket: Bool?
    /// Which descriptor of the reply is the second socket.
    public var twinSocketIndex: Int?
    /// REGION_WRITE_MULTI is understood.
    public var writesMultiple: Bool?
    /// Page size for the tracking of written pages.
    public var migrationPageSize: Int?
    /// Largest bitmap for the tracking of written pages.
    public var migrationBitmapSize: Int?

    /// `max_msg_fds` of who does not state it.
    public static let defaultMessageDescriptors = 1
    /// `max_data_xfer_size` of who does not state it.
    public static let defaultTransferSize = 1 << 20
    /// `max_dma_maps` of who does not state it.
    public static let defaultMemoryRanges = 65535

    /// States nothing.
    public init() {}

    /// Reads what follows the version numbers: one JSON object and a zero byte.
    init(terminated text: ArraySlice<UInt8>) throws(Version.Problem) {
        guard text.count <= Version.capabilitiesLimit else {
            throw .capabilities("\(text.count) bytes, the limit is \(Version.capabilitiesLimit)")
        }
        guard text.last == 0 else { throw .capabilities("no zero byte at the end") }
        let json = text.dropLast()
        guard !json.contains(0) else { throw .capabilities("a zero byte before the end") }
        guard Capabilities.depth(json) <= Version.depthLimit else {
            throw .capabilities("nested deeper than \(Version.depthLimit)")
        }
        let document: Document
        do {
            document = try JSONDecoder().decode(Document.self, from: Data(json))
        } catch {
            throw .capabilities("not the JSON of a capabilities object")
        }
        self = document.capabilities?.value ?? Capabilities()
        try check()
    }

    /// JSON without blanks, and a zero byte.
    public var encoded: [UInt8] {
        Array(json.utf8) + [0]
    }

    /// The object. Written by hand: the order of keys, and so the length, is always the same.
    private var json: String {
        var fields: [String] = []
        func add(_ key: String, _ value: (some CustomStringConvertible)?) {
            if let value { fields.append("\"\(key)\":\(value)") }
        }
        add("max_msg_fds", messageDescriptors)
        add("max_data_xfer_size", transferSize)
        add("max_dma_maps", memoryRanges)
        add("pgsizes", pageSizes)
        add("write_multiple", writesMultiple)
        if let hasTwinSocket {
            let index = twinSocketIndex.map { ",\"fd_index\":\($0)" } ?? ""
            add("twin_socket", "{\"supported\":\(hasTwinSocket)\(index)}")
        }
        let migration = [("pgsize", migrationPageSize), ("max_bitmap_size", migrationBitmapSize)]
            .compactMap { key, value in value.map { "\"\(key)\":\($0)" } }
        if !migration.isEmpty { add("migration", "{\(migration.joined(separator: ","))}") }
        return "{\"capabilities\":{\(fields.joined(separator: ","))}}"
    }

    private func check() throws(Version.Problem) {
        if let count = messageDescriptors, !(0...1024).contains(count) {
            throw .capabilities("max_msg_fds \(count)")
        }
        if let size = transferSize, size <= 0 {
            throw .capabilities("max_data_xfer_size \(size)")
        }
        if let count = memoryRanges, count < 0 {
            throw .capabilities("max_dma_maps \(count)")
        }
        if let sizes = pageSizes, sizes <= 0 || sizes & 0xfff != 0 {
            throw .capabilities("pgsizes \(sizes)")
        }
        if let size = migrationPageSize, size <= 0 || size & (size - 1) != 0 {
            throw .capabilities("migration page size \(size)")
        }
        if let size = migrationBitmapSize, size < 0 {
            throw .capabilities("migration bitmap size \(size)")
        }
    }

    /// How deep objects and arrays are nested, whether or not the rest is JSON.
    private static func depth(_ json: ArraySlice<UInt8>) -> Int {
        var depth = 0
        var deepest = 0
        var isString = false
        var isEscaped = false
        for byte in json {
            if isString {
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isString = false
                }
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): isString = true
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                deepest = max(deepest, depth)
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            default: break
            }
        }
        return deepest
    }
}

// The JSON as it is on the wire.
extension Capabilities {
    private struct Document: Decodable {
        let capabilities: Fields?
    }

    private struct Fields: Decodable {
        let max_msg_fds: Int?
        let max_data_xfer_size: Int?
        let max_dma_maps: Int?
        let pgsizes: Int?
        let twin_socket: TwinSocket?
        let write_multiple: Bool?
        let migration: Migration?

        var value: Capabilities {
            var value = Capabilities()
            value.messageDescriptors = max_msg_fds
            value.transferSize = max_data_xfer_size
            value.memoryRanges = max_dma_maps
            value.pageSizes = pgsizes
            value.hasTwinSocket = twin_socket?.supported
            value.twinSocketIndex = twin_socket?.fd_index
            value.writesMultiple = write_multiple
            value.migrationPageSize = migration?.pgsize
            value.migrationBitmapSize = migration?.max_bitmap_size
            return value
        }
    }

    private struct TwinSocket: Decodable {
        let supported: Bool?
        let fd_index: Int?
    }

    private struct Migration: Decodable {
        let pgsize: Int?
        let max_bitmap_size: Int?
    }
}
