"""Our own words, English and French, for what most catalogs ask: colours, materials, patterns, genders, sizes.

A line is `concept < wider concept: word, word, ...`. Where a vocabulary lacks the concept, its words mean the
wider one: "bordeaux" is Burgundy to who has it, else Maroon, else Red. A `~` marks a word that means this only
where a cell says what it is about: "olive" is a colour under "Color", seldom in a title.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from shelver.attributes.fold import key

_COLOURS = """
red: rouge, scarlet, écarlate, crimson, cramoisi, vermilion, vermillon, carmine, ruby~, rubis~, cherry~, brick~
burgundy < maroon: bordeaux, wine~, wine red, oxblood, merlot~, lie de vin, claret~
maroon < red: dark red, rouge foncé, grenat
orange: orangé, tangerine~, pumpkin~, abricot~, apricot~
rust < brown: rouille, rust brown, terracotta~, terre cuite~
peach < orange: pêche~, peach pink
coral < pink: corail~
yellow: jaune, lemon~, citron~, canary~
mustard < yellow: moutarde~, mustard yellow, ocre~, ochre~
gold: golden, doré, dorée, or~, gold tone, gold plated
rose gold < gold: or rose, rose golden
green: vert, verte, emerald~, émeraude~, forest green, bottle green, vert sapin
olive < green: olive green, vert olive, army green, military green, vert militaire
khaki < green: kaki
lime < green: lime green, vert citron, parrot green
mint < green: mint green, menthe~, vert menthe
sea green < green: seafoam~, vert d'eau, aqua green
fluorescent green < green: neon green, fluo green, vert fluo
teal < blue: bleu canard, bleu pétrole, petrol~, peacock blue
turquoise < blue: turquoise blue, bleu turquoise, aqua, aquamarine~, cyan
blue: bleu, bleue, azure~, cobalt~, royal blue, royalblue, bleu roi, sky blue, sky~, bleu ciel, baby blue, indigo
navy < blue: navy blue, marine~, bleu marine, bleu nuit, midnight blue
purple: pourpre, plum~, prune~, aubergine~, eggplant~, grape~
violet < purple: violette
lavender < purple: lavande, lavendar, lilac, lilas, parme
mauve < purple:
magenta < pink: fuchsia, fuschia, fushia, hot pink
pink: rose pink, baby pink, blush~, framboise~, raspberry~, salmon~, saumon~
rose < pink:
brown: marron, brun, brune, chocolate~, chocolat~, chestnut~, cognac~, caramel~, espresso~, mocha~
coffee brown < brown: coffee~, café~
mushroom brown < brown: mushroom~
tan < brown: camel~, fauve~, havane~
bronze < brown: bronzed
copper < brown: cuivre~, cuivré
taupe < brown:
beige: sable~, sand~, ficelle~, oatmeal~
cream < beige: crème~, ecru, écru
nude < beige: chair~
skin < nude: skin tone, flesh~
white: blanc, blanche, snow~
off white < white: blanc cassé, eggshell~, pearl white
ivory < off white: ivoire
black: noir, noire, jet black, ebony~, ébène~, onyx~
gray: gris, grise, ash~, slate gray, ardoise~
gray melange < gray: gris chiné, heather gray, gray marl
charcoal < gray: charcoal gray, anthracite, gunmetal
silver: argenté, argentée, argent~, silver tone
steel < silver: steel gray~, acier~
metallic: métallisé, métallique
clear: transparent, translucent, see through, translucide
multicolor: multi~, multicolored, multi color, multi colored, multicolore, assorted~, assorti~, rainbow~, bigarré
"""

_MATERIALS = """
cotton: coton, 100% cotton, pima
wool: laine, woolen, woollen
merino < wool: mérinos
cashmere < wool: cachemire
silk: soie
linen: lin~, flax~
hemp: chanvre
leather: cuir
faux leather: simili cuir, similicuir, faux cuir, cuir synthétique, artificial leather, leatherette
suede < leather: daim, nubuck
denim < cotton: jean~
velvet: velours
corduroy < velvet: velours côtelé
polyester: poly~
nylon < polyamide:
polyamide < nylon: pa~
acrylic: acrylique
elastane < spandex: élasthanne
spandex < elastane: lycra
viscose < rayon:
rayon < viscose: rayonne
fleece: polaire
felt: feutre~
fur: fourrure
faux fur: fausse fourrure, artificial fur
lace: dentelle
satin:
mesh: maille~, filet~
jute:
metal: métal, alloy~, alliage~
steel < metal: acier
stainless steel < steel: inox, acier inoxydable, acier inox
iron < metal: fer~, cast iron, wrought iron, fonte~
aluminum < metal: alu, alluminium
brass < metal: laiton
copper < metal: cuivre
zinc < metal:
wood: bois, wooden
solid wood < wood: bois massif
oak < wood: chêne
pine < wood: pin~
walnut < wood: noyer
teak < wood: teck
bamboo: bambou
plywood < wood: contreplaqué
medium density fiberboard < wood: mdf
rattan:
wicker < rattan: osier
glass~: verre~, crystal~, cristal~
ceramic: céramique
porcelain < ceramic: porcelaine
stoneware < ceramic: grès
clay: argile
terracotta < clay: terre cuite
stone: pierre~
marble < stone: marbre
concrete: béton
plastic: plastique
polyvinyl chloride < plastic: pvc
polypropylene < plastic: pp~, polypropylène
polyethylene < plastic: pe~, polyéthylène
polyurethane < plastic: pu~, polyuréthane
acrylonitrile butadiene styrene < plastic: abs~
polycarbonate < plastic: pc~
silicone: silicon~
rubber: caoutchouc, gomme~
latex < rubber:
resin: résine, polyresin
foam: mousse~
cork: liège
paper: papier~
cardboard < paper: carton~
fabric: tissu, textile, cloth~
canvas < fabric: toile~
synthetic: synthétique
"""

_PATTERNS = """
solid~: plain~, uni~, unie~, self design, solid color, plain weave
striped: stripe, stripes, rayé, rayée, rayures, à rayures, pinstripe, striper
checkered: check~, checked, checks, checkered, chequered, carreaux, à carreaux, gingham, vichy~, damier
plaid < checkered: tartan, écossais
dots: polka dot, polka dots, dotted, pois~, à pois, spotted
floral: flower~, flowers, flowery, fleuri, fleurie, à fleurs, floral print
camouflage: camo
animal: animal print, leopard print, zebra print, imprimé animal, imprimé léopard, snake print
geometric: geometrical, géométrique
abstract: abstrait
paisley:
chevron: zigzag, herringbone~
houndstooth:
hearts: coeurs
stars: étoiles
leaves: feuilles
printed: print~, imprimé, imprimée, graphic print
embroidered: brodé, brodée
tie dye: tie and dye
"""

_GENDERS = """
male: man, men, mens, gent, gents, gentleman, gentlemen, homme, hommes, masculin, male adult
female: woman, women, womens, lady, ladies, femme, femmes, féminin, féminine
boys < male: boy, baby boy, garçon, garçons, garconnet
girls < female: girl, baby girl, fille, filles, fillette
unisex: mixte~, men and women, unisexe, men & women, women & men
"""

_SEASONS = """
spring~: printemps
summer: été~, summers
fall~: autumn, automne
winter: hiver
all seasons: all season, toutes saisons, 4 seasons, four seasons, all year round
"""

_AGES = """
adults: adult, adulte
kids: kid, child, children, enfant, enfants, junior
babies < kids: baby, bébé, infant, nourrisson
newborn < babies: nouveau né
toddlers < kids: toddler, tout petit
teens < kids: teen, teenager, ado, adolescent
"""

_SIZES = """
extra small: xs~, très petit
small: s~, petit~, petite~, sm~
medium: m~, moyen~, moyenne~, med~
large: l~, grand~, grande~, lg~
extra large: xl~, x large, très grand
double extra large: xxl~, 2xl~, xx large
triple extra large: xxxl~, 3xl~
one size: free size, taille unique, one size fits all, tu~, os~
"""


@dataclass(frozen=True, slots=True)
class Concept:
    """One meaning.

    Attributes:
        name: its key (`fold.key`).
        wider: the key of the concept that holds this one; None at the widest.
        words: keys that mean it, its name first.
        cell_only: those of `words` that mean it only in a cell that is about it.
    """

    name: str
    wider: str | None
    words: tuple[str, ...]
    cell_only: frozenset[str]


@dataclass(frozen=True)
class Group:
    """The concepts of one kind of attribute.

    Attributes:
        heads: words (stems) that end an attribute's name of this kind, or begin it in French.
        concepts: by name.
        modifiers: stems that may stand beside a word and do not change what it means here: dark, 100 %.
    """

    heads: frozenset[str]
    concepts: dict[str, Concept]
    modifiers: frozenset[str] = frozenset()

    @cached_property
    def known(self) -> frozenset[str]:
        """All words of all concepts."""
        return frozenset(word for concept in self.concepts.values() for word in concept.words)


def _concepts(text: str) -> dict[str, Concept]:
    found: dict[str, Concept] = {}
    for line in text.strip().split("\n"):
        head, _, rest = line.partition(":")
        name, _, wider = head.partition("<")
        listed = [name, *(word for word in rest.split(",") if word.strip())]
        words = tuple(dict.fromkeys(key(word) for word in listed))
        found[words[0]] = Concept(
            name=words[0],
            wider=key(wider) or None,
            words=words,
            cell_only=frozenset(key(word) for word in listed if word.strip().endswith("~")),
        )
    return found


def _stems(text: str) -> frozenset[str]:
    return frozenset(key(word) for word in text.split())


GROUPS: Final = (
    Group(
        _stems("color couleur coloris"),
        _concepts(_COLOURS),
        _stems(
            "dark light bright deep pale pastel neon fluorescent matte matt mat glossy metallic vivid solid clair "
            "claire fonce foncee vif vive"
        ),
    ),
    Group(
        _stems("material materiau matiere fabric tissu composition"),
        _concepts(_MATERIALS),
        _stems("% pure genuine real pur veritable organic bio high quality premium grade food lightweight soft"),
    ),
    Group(
        _stems("pattern motif print design"), _concepts(_PATTERNS), _stems("print printed imprime motif pattern")
    ),
    Group(_stems("gender sex sexe genre"), _concepts(_GENDERS)),
    Group(_stems("season saison"), _concepts(_SEASONS)),
    Group(_stems("age"), _concepts(_AGES)),
    Group(_stems("size taille"), _concepts(_SIZES), _stems("size taille")),
)

NAMES: Final = tuple(
    tuple(map(key, line.split(",")))
    for line in (
        "color, couleur, coloris, main color, base color, primary color, product color, color family",
        "material, matériau, matière, main material, materials used, composition",
        "fabric, tissu, fabric type",
        "pattern, motif, print, pattern type, type de motif",
        "gender, target gender, sex, sexe, genre, ideal for, suitable for",
        "season, saison",
        "age group, tranche d'âge, age",
        "size, taille, dimension",
        "brand, marque",
        "usage, use, utilisation, occasion",
        "length, longueur, product length",
        "width, largeur, product width",
        "height, hauteur, product height",
        "depth, profondeur",
        "diameter, diamètre",
        "weight, poids, product weight, item weight, net weight",
        "capacity, capacité, contenance, volume",
        "shape, forme",
        "finish, finition",
        "style, type de style",
        "sleeve length, longueur de manche, sleeve",
        "power, puissance, wattage",
        "voltage, tension",
    )
)
"""Names of attributes that mean the same; the first are tried first."""

# Words that are values somewhere and say nothing in a running text.
COMMON: Final = _stems(
    "other others none no yes new old all any not set pack with and or the a an of for in on to by at is it as "
    "free full half single double standard regular normal basic classic universal mixed autre autres aucun oui "
    "non home sport sports general original natural pro plus mini max lite easy top best good high low long short "
    "hot cold soft hard fast slow light dark art text logo scale air water fire earth may off front back left "
    "right one two three four five six seven eight nine ten un une deux trois le la les de du des en et ou au aux "
    "pour avec sans sur par power time life love open closed adult large small medium fit fall spring"
)
# What stands before a word and denies it.
NOT_BEFORE: Final = _stems("no not non without sans pas faux fake imitation like simili excluding except anti")
# What stands behind a word and denies it, or makes another thing of it: sugar free, wood effect, olive oil.
NOT_BEHIND: Final = _stems(
    "free look effect like style imitation scented flavor flavored flavoured finish oil juice tea"
)
