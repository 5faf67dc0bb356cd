public import HostSystem

/// What functions were bound to before this program changed it, one file a function, written before
/// the first change: so a crash leaves nothing behind that `device restore` could not mend.
///
/// It lives in `/run`, which is empty after a boot, as drivers are back to normal then.
public struct BindingJournal: Sendable {
    /// Where the files are.
    public static let directory = "/run/vhost-pci/bindings"

    /// The state of a function before the first change.
    public struct Entry: Hashable, Sendable {
        /// Vendor and device, to tell a function that was exchanged meanwhile.
        public let identity: String
        /// The driver, `nil` for none.
        public let driver: String?
        /// The override, `nil` for none.
        public let override: String?

        /// Describes a state.
        public init(identity: String, driver: String?, override: String?) {
            self.identity = identity
            self.driver = driver
            self.override = override
        }
    }

    private static let heading = "vhost-pci binding 1"
    private let tree: HostTree

    /// The journal of a host.
    public init(_ tree: HostTree) {
        self.tree = tree
    }

    /// The functions that were changed and not put back, ascending.
    public var addresses: [PCIAddress] {
        tree.entriesIfAny(Self.directory).compactMap { PCIAddress($0) }.sorted()
    }

    /// The entry of a function, `nil` when it was not changed; throws `bind/journal` for a file that
    /// this program did not write.
    public func entry(_ address: PCIAddress) throws(PCIError) -> Entry? {
        let path = Self.path(address)
        guard tree.exists(path) else { return nil }
        let text: String
        do { text = try tree.text(path) } catch { throw .system(error) }
        var values: [Substring: String] = [:]
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for line in lines.dropFirst() {
            let parts = line.split(separator: " ", maxSplits: 1)
            values[parts.first ?? ""] = parts.count == 2 ? String(parts[1]) : ""
        }
        guard lines.first == Self.heading[...], let identity = values["ids"],
            let driver = values["driver"], let override = values["override"],
            Self.isName(driver), Self.isName(override)
        else {
            throw .refused(
                HostRefusal(
                    "bind/journal",
                    "\(tree.place(of: path)) is not a record of this program",
                    remedy: "look at it, then remove it"
                )
            )
        }
        return Entry(
            identity: identity,
            driver: driver == "-" ? nil : driver,
            override: override == "-" ? nil : override
        )
    }

    /// Keeps an entry before anything is changed.
    public func record(_ entry: Entry, for address: PCIAddress) throws(PCIError) {
        let lines = [
            Self.heading, "ids \(entry.identity)", "driver \(entry.driver ?? "-")",
            "override \(entry.override ?? "-")", "",
        ]
        do {
            try tree.makeDirectory(Self.directory)
            try tree.replaceFile(Self.path(address), with: lines.joined(separator: "\n"))
        } catch {
            throw .refused(
                HostRefusal(
                    "bind/journal",
                    "nothing was changed, because what was there before cannot be kept: \(error)",
                    remedy: "run as root, on a host whose \(Self.directory) can be written"
                )
            )
        }
    }

    /// Forgets a function that is as it was.
    public func forget(_ address: PCIAddress) throws(PCIError) {
        do { try tree.removeFile(Self.path(address)) } catch { throw .system(error) }
    }

    private static func path(_ address: PCIAddress) -> String { "\(directory)/\(address)" }

    /// A driver's name, as far as paths are made of it.
    static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count < 64 && text != "." && text != ".."
            && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.+".contains($0)) }
    }
}
